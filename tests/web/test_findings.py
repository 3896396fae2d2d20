"""Tests that little is kept of what models find, and that it is kept bit for bit."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from nat_mm.inference.inputs import Frame
from nat_mm.web.findings import PackedMap, pack_finding

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
MAPS = {
    'masks': torch.rand(3, 37, 53) > 0.5,
    'no masks': torch.zeros(0, 37, 53, dtype=torch.bool),
    'labels': torch.randint(0, 150, (1, 37, 53)),
    'segments': torch.randint(0, 133_000, (1, 37, 53)),
    'negative': torch.randint(-1, 300, (1, 37, 53), dtype=torch.int32),
}


@pytest.mark.parametrize('values', MAPS.values(), ids=MAPS)
def test_map_stays_the_same(values):
    unpacked = PackedMap(values).unpack()
    assert unpacked.dtype == values.dtype
    assert torch.equal(unpacked, values)


def test_finding_keeps_what_is_drawn():
    sample = BaseDataElement(metainfo={'ori_shape': (37, 53)})
    sample.pred_instances = InstanceData(
        scores=torch.tensor([0.9, 0.01, 0.5]),
        labels=torch.tensor([1, 2, 3]),
        bboxes=torch.rand(3, 4),
        masks=MAPS['masks'],
    )
    sample.pred_sem_seg = PixelData(data=MAPS['labels'])
    sample.seg_logits = PixelData(data=torch.rand(150, 37, 53))
    finding = pack_finding(
        'model', Frame(IMAGE, 'image', 'street.png'), sample, seconds=1, lowest_score=0.05
    )
    frame, found = finding.frame(), finding.sample()
    assert np.array_equal(frame.image, IMAGE)
    assert (frame.name, frame.file_name) == ('image', 'street.png')
    assert found.ori_shape == (37, 53)
    assert found.pred_instances.labels.tolist() == [1, 3]
    assert torch.equal(found.pred_instances.masks, MAPS['masks'][[0, 2]])
    assert torch.equal(found.pred_sem_seg.data, MAPS['labels'])
    assert 'seg_logits' not in found
    # Drawing modifies the sample that it gets.
    found.pred_instances.masks[:] = False
    assert finding.sample().pred_instances.masks.any()


@pytest.mark.parametrize(
    'pixels',
    [
        np.random.default_rng(1).integers(0, 60_000, (37, 53, 5), dtype=np.uint16),
        np.random.default_rng(2).normal(size=(37, 53)).astype(np.float32),
    ],
    ids=['16 bit', 'float'],
)
def test_finding_keeps_what_the_model_saw(pixels):
    frame = Frame(IMAGE, 'image', 'street.tif', results={'img': pixels, 'img_path': '/uploads/1'})
    finding = pack_finding('model', frame, BaseDataElement(), seconds=1, lowest_score=0)
    again = finding.frame()
    assert again.results['img'].dtype == pixels.dtype
    np.testing.assert_array_equal(again.results['img'], pixels)
    assert again.results['ori_shape'] == (37, 53)
    assert again.results['img_path'] is None
    assert finding.size > pixels.size


def test_finding_in_a_large_image_is_small():
    side = 1333
    image = cv2.resize(IMAGE, (side, side), interpolation=cv2.INTER_CUBIC)
    rows, columns = torch.arange(side)[:, None], torch.arange(side)
    masks = torch.stack(
        [(rows - 13 * i) ** 2 + (columns - 7 * i) ** 2 < (20 + i) ** 2 for i in range(40)]
    )
    sample = BaseDataElement()
    sample.pred_instances = InstanceData(scores=torch.ones(40), masks=masks)
    finding = pack_finding('model', Frame(image, 'image', ''), sample, seconds=1, lowest_score=0)
    # The masks alone took 71 MB.
    assert finding.size < 5e6
    assert torch.equal(finding.sample().pred_instances.masks, masks)
