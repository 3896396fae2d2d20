"""Tests that tiled images give the same results as whole ones, with less memory."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from pycocotools import mask as coco_mask
from torch import nn

import nat_mm
from nat_mm.errors import UserError
from nat_mm.inference import tiling as tiling_module
from nat_mm.inference.mask_crops import MaskCrop
from nat_mm.inference.model import Model
from nat_mm.inference.tiling import Tiling
from tests.loading import load_command

CONFIGS = Path(nat_mm.__file__).parent / '.mim' / 'configs'
RADIUS = 4
"""How far a pixel of the segmentor below sees, through four 3 x 3 convolutions."""


def convolution(channels, seed):
    """Makes a layer with integer weights, so that sums are the same in any order."""
    layer = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
    generator = torch.Generator().manual_seed(seed)
    layer.weight.data = torch.randint(-1, 2, layer.weight.shape, generator=generator).float()
    return layer


@MODELS.register_module()
class ThreeConvolutions(nn.Module):
    """A backbone without strides."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(convolution(3 if seed == 0 else 4, seed) for seed in range(3))

    def forward(self, image):
        for layer in self.layers:
            image = layer(image).relu()
        return [image]


@pytest.fixture(scope='module')
def segmentor() -> Model:
    """A segmentor whose result is the same on every machine."""
    head = dict(in_channels=4, channels=4, num_convs=0, concat_input=False, num_classes=4)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    config = Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor'),
                backbone=dict(type='mmengine.ThreeConvolutions'),
                decode_head=dict(type='FCNHead', dropout_ratio=0, **head),
                test_cfg=dict(mode='whole'),
            ),
            test_dataloader=dict(dataset=dict(type='BaseSegDataset', pipeline=pipeline)),
        )
    )
    model = nat_mm.load_model(config, 'none', device='cpu')
    model.module.decode_head.conv_seg = convolution(4, 3)
    return model


@pytest.fixture(scope='module')
def detector() -> Model:
    return nat_mm.load_model(CONFIGS / 'demo/mask_rcnn_nat_demo.py', 'none', device='cpu')


@pytest.fixture
def seeing_detector(detector, monkeypatch) -> Model:
    """A detector that finds each connected bright region and takes its brightness as class."""
    monkeypatch.setattr(detector, 'infer', lambda frames: [find_regions(f) for f in frames])
    return detector


def find_regions(frame):
    from mmdet.structures import DetDataSample

    boxes, masks, labels = [], [], []
    for label, gray in enumerate((100, 200)):
        bright = (frame.image[..., 0] == gray).astype(np.uint8)
        count, parts, statistics, _ = cv2.connectedComponentsWithStats(bright)
        for number in range(1, count):
            left, top, width, height, _ = statistics[number]
            boxes.append([left, top, left + width, top + height])
            masks.append(parts == number)
            labels.append(label)
    found = InstanceData()
    found.bboxes = torch.tensor(boxes).float().reshape(-1, 4)
    # Larger parts of an object have higher scores.
    found.scores = torch.tensor([0.5 + mask.mean() / 2 for mask in masks]).float()
    found.labels = torch.tensor(labels).long()
    found.masks = torch.from_numpy(np.array(masks).reshape(-1, *frame.image.shape[:2]))
    return DetDataSample(pred_instances=found)


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 8, (150, 211, 3), dtype=np.uint8)


@pytest.mark.parametrize('batch_size', [1, 3])
@pytest.mark.parametrize('size', [64, 100, 160, 400], ids='tiles of {}'.format)
def test_label_map_in_tiles_is_that_of_the_whole_image(size, batch_size, segmentor, image):
    whole = segmentor.predict(image).label_map
    assert len(np.unique(whole)) == 4
    tiling = Tiling(size, 2 * RADIUS)
    tiled = segmentor.predict(image, tiling=tiling, batch_size=batch_size)
    assert tiled.label_map.dtype == np.uint8
    np.testing.assert_array_equal(tiled.label_map, whole)


def test_pixels_that_look_farther_than_half_of_the_overlap_differ_at_seams_only(segmentor, image):
    whole = segmentor.predict(image).label_map
    tiling = Tiling(64, 0)
    differs = segmentor.predict(image, tiling=tiling).label_map != whole
    assert differs.any()
    cuts = [tiling.kept(start, 211).stop for start in tiling.starts(211)][:-1]
    rows = [tiling.kept(start, 150).stop for start in tiling.starts(150)][:-1]
    near = np.zeros_like(differs)
    for cut in cuts:
        near[:, cut - RADIUS : cut + RADIUS] = True
    for cut in rows:
        near[cut - RADIUS : cut + RADIUS] = True
    # The last tile is moved back, so it overlaps more than it must.
    assert not differs[~near].any()


@pytest.mark.parametrize(
    ('length', 'starts'),
    [
        (20, [0]),
        (64, [0]),
        (65, [0, 1]),
        (112, [0, 48]),
        (113, [0, 48, 49]),
        (200, [0, 48, 96, 136]),
    ],
)
def test_tiles_cover_a_side(length, starts):
    tiling = Tiling(64, 16)
    assert tiling.starts(length) == starts
    pieces = [tiling.kept(start, length) for start in starts]
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == length
    for start, piece in zip(starts, pieces, strict=True):
        assert start <= piece.start < piece.stop <= start + 64


def scene():
    """Makes two classes of objects: on a seam, on a corner of four tiles, side by side, inside."""
    image = np.zeros((150, 211, 3), np.uint8)
    image[20:40, 40:75] = 100  # on the seam of columns 48 to 64
    image[42:70, 44:66] = 200  # on a corner
    image[48:60, 70:90] = 100  # on the seam of rows
    cv2.circle(image, (125, 110), 14, (200, 200, 200), 4)  # a ring: its hole stays open
    image[10:20, 20:30] = 100  # inside one tile
    image[140:150, 200:211] = 200  # in the last corner
    return image


def test_object_on_a_seam_is_found_once_and_whole(seeing_detector):
    image = scene()
    whole = seeing_detector.predict(image)
    tiled = seeing_detector.predict(image, tiling=Tiling(64, 16))
    assert len(whole.boxes) == 6

    def by_place(result):
        order = np.lexsort(result.boxes.T)
        masks = [entry['segmentation'] for entry in result.to_coco()]
        return result.boxes[order], result.labels[order], [masks[number] for number in order]

    for found, expected in zip(by_place(tiled), by_place(whole), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.all(np.diff(tiled.scores) <= 0)
    np.testing.assert_array_equal(tiled.masks.any(0), whole.masks.any(0))
    opaque = dict(opacity=1, with_labels=False)
    np.testing.assert_array_equal(tiled.draw(**opaque), whole.draw(**opaque))


def test_image_without_objects(seeing_detector):
    result = seeing_detector.predict(np.zeros((100, 100, 3), np.uint8), tiling=Tiling(64, 16))
    assert result.describe()['instances'] == []
    assert result.masks.shape == (0, 100, 100)


def test_masks_of_whole_images_are_not_kept(seeing_detector):
    result = seeing_detector.predict(scene(), tiling=Tiling(64, 16))
    result.describe()
    result.draw()
    crops = result.sample.pred_instances.masks
    pixels = sum(crop.mask.base is None and crop.mask.size for crop in crops)
    assert 0 < pixels < 150 * 211


@pytest.mark.parametrize('kind', ['random', 'empty', 'full', 'last column', 'first pixel'])
def test_encoding_of_a_crop(kind):
    mask = np.zeros((37, 29), bool)
    if kind == 'random':
        mask[5:30, 7:20] = np.random.default_rng(0).random((25, 13)) > 0.5
    elif kind == 'full':
        mask[:] = True
    elif kind == 'last column':
        mask[:, -1] = True
    elif kind == 'first pixel':
        mask[0, 0] = True
    crop = MaskCrop.of(mask)
    assert crop.encode(37, 29) == coco_mask.encode(np.asfortranarray(mask, np.uint8))
    np.testing.assert_array_equal(crop.in_image(37, 29), mask)


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_command(task, tmp_path):
    config = {'detector': 'mask_rcnn_nat_demo', 'segmentor': 'upernet_nat_demo'}[task]
    cv2.imwrite(str(tmp_path / 'a.png'), scene())
    options = ['--tile', '100', '--overlap', '20', '--batch-size', '2', '--device', 'cpu']
    options += ['--score-threshold', '0', '--out-dir', str(tmp_path / 'out')]
    if task == 'detector':
        options += ['--cfg-options', 'model.test_cfg.rcnn.max_per_img=5']
    main = load_command('predict').main
    main([str(CONFIGS / f'demo/{config}.py'), 'none', str(tmp_path / 'a.png'), *options])
    assert cv2.imread(str(tmp_path / 'out/images/a.jpg')).shape == (150, 211, 3)
    if task == 'segmentor':
        labels = cv2.imread(str(tmp_path / 'out/results/a.png'), cv2.IMREAD_UNCHANGED)
        assert (labels.shape, labels.dtype) == ((150, 211), np.uint8)
        assert 1 <= labels.min() <= labels.max() <= 7
        return
    instances = json.loads((tmp_path / 'out/results/a.json').read_text())['instances']
    assert instances
    for instance in instances:
        assert coco_mask.decode(instance['mask']).shape == (150, 211)
    assert max(instance['bbox'][2] for instance in instances) > 100


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--tile', '8'], 'a tile must have at least 32 pixels, got 8'),
        (['--tile', '64', '--overlap', '33'], 'overlap must be from 0 to half of the tile, 32'),
        (['--overlap', '33'], '--overlap needs --tile'),
    ],
    ids=['small', 'overlap', 'no tiles'],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        load_command('predict').main(['gone.py', 'gone.pth', 'gone.jpg', *options])


def test_models_without_tiles(detector, segmentor, monkeypatch):
    monkeypatch.setattr(tiling_module, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"sahi is not installed: pip install 'nat_mm\[tile\]'"):
        detector.predict(scene(), tiling=Tiling(64, 16))
    assert segmentor.predict(scene(), tiling=Tiling(64, 16)).label_map.shape == (150, 211)
    monkeypatch.setattr(type(segmentor), 'task', 'classification')
    with pytest.raises(UserError, match='a classifier has one answer for a whole image'):
        segmentor.predict(scene(), tiling=Tiling(64, 16))


def test_panoptic_segments_are_refused(detector, monkeypatch):
    def infer(frames):
        samples = [find_regions(frame) for frame in frames]
        for sample in samples:
            sample.pred_panoptic_seg = PixelData()
        return samples

    monkeypatch.setattr(detector, 'infer', infer)
    with pytest.raises(UserError, match='panoptic segments cannot be joined'):
        detector.predict(scene(), tiling=Tiling(64, 16))
