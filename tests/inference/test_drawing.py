"""Tests that drawings have one color per class, readable names and a visible image."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from nat_mm.errors import UserError
from nat_mm.inference.drawing import classes_of_dataset, draw_sample, enlarge_sample
from nat_mm.inference.labels import Labels
from nat_mm.inference.palettes import complete_palette, make_palette
from nat_mm.inference.results import DetectionResult
from nat_mm.inference.visualizer import ResultVisualizer

CLASSES = ['cat', '$dog_{', 'bird']
PALETTE = [(250, 10, 20), (20, 240, 30), (30, 40, 230)]
HEIGHT, WIDTH = 60, 90
BOXES = [[10, 10, 30, 40], [50, 20, 80, 50]]
IMAGE = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)


def make_masks():
    masks = np.zeros((2, HEIGHT, WIDTH), bool)
    for mask, (left, top, right, bottom) in zip(masks, BOXES, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def detection(scores=(0.9, 0.5), labels=(2, 0)):
    """Makes the same objects as predictions, with masks as from models, and as ground truth."""
    sample, masks = DetDataSample(), make_masks()
    common = {'labels': torch.tensor(labels), 'bboxes': torch.tensor(BOXES, dtype=torch.float32)}
    sample.pred_instances = InstanceData(
        **common, scores=torch.tensor(scores), masks=torch.from_numpy(masks)
    )
    bitmaps = BitmapMasks(masks.astype(np.uint8), HEIGHT, WIDTH)
    sample.gt_instances = InstanceData(**common, masks=bitmaps)
    return sample


def label_map(labels):
    data = torch.from_numpy(np.asarray(labels))[None]
    return SegDataSample(pred_sem_seg=PixelData(data=data), gt_sem_seg=PixelData(data=data))


def draw(sample, image=IMAGE, **options):
    return draw_sample(image, sample, classes=CLASSES, palette=PALETTE, **options)


def mixed(color, opacity, gray=100):
    return np.array(color) * opacity + gray * (1 - opacity)


@pytest.mark.parametrize('opacity', [0, 0.3, 1])
@pytest.mark.parametrize('truth', [False, True], ids=['found', 'true'])
def test_mask_has_the_color_of_its_class(opacity, truth):
    drawn = draw(detection(), opacity=opacity, truth=truth, with_labels=False)
    for (left, top, right, bottom), label in zip(BOXES, (2, 0), strict=True):
        inside = drawn[top + 3 : bottom - 3, left + 3 : right - 3]
        assert abs(inside - mixed(PALETTE[label], opacity)).max() <= 1
        assert (drawn[top, left:right] == PALETTE[label]).all()
    assert (drawn[:, 35:45] == 100).all()
    assert (IMAGE == 100).all()


def test_same_colors_in_every_drawing():
    """Colors do not depend on other objects, though mmdet gives objects random shades."""
    first = draw(detection(), with_labels=False)
    np.testing.assert_array_equal(first, draw(detection(), with_labels=False))
    alone = draw(detection(), with_labels=False, score_threshold=0.7)
    np.testing.assert_array_equal(alone[:, :40], first[:, :40])
    assert (alone[:, 40:] == 100).all()


def test_labels_that_are_floats():
    """CrowdDet's head makes them from its scores."""
    sample = detection(labels=(2.0, 0.0))
    np.testing.assert_array_equal(draw(sample), draw(detection()))
    model = SimpleNamespace(classes=CLASSES)
    result = DetectionResult(model, None, sample, score_threshold=0.7)
    assert result.labels.dtype == np.int64
    assert result.class_names == ['bird']


@pytest.mark.parametrize('kind', ['found', 'true'])
def test_label_map(kind):
    labels = np.zeros((HEIGHT, WIDTH), int)
    labels[:, 30:], labels[:, 60:] = 1, 255
    drawn = draw(label_map(labels), truth=kind == 'true', with_labels=False, opacity=0.4)
    assert abs(drawn[:, :30] - mixed(PALETTE[0], 0.4)).max() <= 1
    assert abs(drawn[:, 30:60] - mixed(PALETTE[1], 0.4)).max() <= 1
    assert abs(drawn[:, 60:] - mixed((0, 0, 0), 0.4)).max() <= 1  # no class


def test_panoptic_segments():
    numbers = np.full((HEIGHT, WIDTH), len(CLASSES))  # no segment
    numbers[:, 30:60], numbers[:, 60:75], numbers[:, 75:] = 1, 1000 + 2, 2000 + 2
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=torch.from_numpy(numbers)[None]))
    drawn = draw(sample, with_labels=False)
    assert (drawn[:, :29] == 100).all()
    assert abs(drawn[:, 32:58] - mixed(PALETTE[1], 0.5)).max() <= 1
    for columns in (slice(62, 74), slice(77, 90)):
        assert abs(drawn[:, columns] - mixed(PALETTE[2], 0.5)).max() <= 1
    assert (drawn[:, 75] == 255).all()  # the border between two segments of one class
    boxes = DetDataSample(pred_panoptic_seg=sample.pred_panoptic_seg)
    boxes.pred_instances = detection().pred_instances
    assert (draw(boxes, with_labels=False)[10, 10:30] == PALETTE[2]).all()


SIZES = [(8, 8), (64, 64), (40, 1200), (1200, 40), (600, 800), (3000, 2000)]


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_names_are_inside_and_apart(size, monkeypatch):
    height, width = size
    written = []
    write = Labels.write

    def keep(labels, *args, **options):
        write(labels, *args, **options)
        written[:] = labels._taken.tolist()

    monkeypatch.setattr(Labels, 'write', keep)
    rng = np.random.default_rng(0)
    corners = rng.uniform(-0.1, 1.1, (12, 2, 2)) * (width, height)
    objects = InstanceData(
        labels=torch.arange(12) % 3,
        bboxes=torch.from_numpy(np.concatenate([corners.min(1), corners.max(1)], axis=1)),
        scores=torch.linspace(0.9, 0.4, 12),
    )
    image = np.full((height, width, 3), 100, np.uint8)
    drawn = draw(DetDataSample(pred_instances=objects), image)
    assert drawn.shape == image.shape
    assert written
    for left, top, right, bottom in written:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        # Letters are at least 10 pixels high, and not smaller in a large image than in a small one.
        assert bottom - top >= min(10, height, (height * width) ** 0.5 / 50)
    for one, other in itertools.combinations(written, 2):
        sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
        smaller = min(np.prod(np.subtract(box[2:], box[:2])) for box in (one, other))
        assert sides.clip(min=0).prod() <= 0.1 * smaller
    covered = sum(np.prod(np.subtract(box[2:], box[:2])) for box in written[1:])
    assert covered <= height * width / 5


def test_many_classes_are_named_without_hiding_the_image():
    side, count = 480, 150
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(count)).repeat(2)[: 15 * 16].reshape(15, 16)
    labels = labels.repeat(side // 15, axis=0).repeat(side // 16, axis=1)
    classes = [f'class {number}' for number in range(count)]
    palette = make_palette(count)
    image = np.full((*labels.shape, 3), 100, np.uint8)
    options = {'classes': classes, 'palette': palette}
    named = draw_sample(image, label_map(labels), **options)
    plain = draw_sample(image, label_map(labels), **options, with_labels=False)
    assert 0.02 < (named != plain).any(axis=-1).mean() < 0.2


@pytest.mark.parametrize(('color', 'letters'), [((255, 255, 60), 0), ((20, 20, 120), 255)])
def test_letters_contrast_with_their_background(color, letters):
    image = np.full((100, 300, 3), 128, np.uint8)
    Labels(image).write('HHHHHHHH', color, (50, 50, 60, 60))
    assert (image == letters).all(axis=-1).sum() > 20
    assert (image == color).all(axis=-1).sum() > 100


def test_score_stays_where_the_name_is_too_long():
    images = [np.zeros((40, 70, 3), np.uint8) for _ in range(3)]
    for image, note in zip(images, ('', '0.91', '0.37'), strict=True):
        Labels(image).write('a' * 50, (255, 255, 255), (0, 0, 9, 9), note=note)
    assert (images[1] != images[2]).any()
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize(
    ('palette', 'given'),
    [
        (None, []),
        ([], []),
        ('random', []),
        ((1, 2, 3), [(1, 2, 3)]),
        ([[1, 2, 3], [4, 5, 6]], [(1, 2, 3), (4, 5, 6)]),
        (np.array([[1, 2, 3]]), [(1, 2, 3)]),
    ],
    ids=['none', 'empty', 'word', 'one color', 'list', 'array'],
)
def test_palette_is_completed(palette, given):
    completed = complete_palette(palette, 3)
    assert completed[: len(given)] == given
    assert len(set(completed)) == 3
    assert completed[len(given) :] == make_palette(3)[len(given) :]
    assert complete_palette(palette, 1)[:1] == completed[:1]


def test_dataset_without_classes():
    classes, palette = classes_of_dataset({})
    assert classes[7] == 'class 7'
    assert palette[:3] == make_palette(3)


def test_nothing_found():
    sample = DetDataSample(pred_instances=detection().pred_instances[:0])
    np.testing.assert_array_equal(draw(sample), IMAGE)


@pytest.mark.parametrize('opacity', [-0.1, 1.1, float('nan')])
def test_opacity_out_of_range(opacity):
    with pytest.raises(UserError, match='opacity must be from 0 to 1, got'):
        draw(detection(), opacity=opacity)


def test_visualizer_of_runs(tmp_path):
    """Ground truth and prediction are side by side, in the colors of `draw_sample`."""
    visualizer = ResultVisualizer(opacity=0.3)
    visualizer.dataset_meta = {'classes': CLASSES, 'palette': PALETTE}
    out_file = tmp_path / 'drawn.png'
    visualizer.add_datasample('x', IMAGE, detection(), pred_score_thr=0.7, out_file=str(out_file))
    expected = [
        draw(detection(), truth=True, opacity=0.3),
        draw(detection(), opacity=0.3, score_threshold=0.7),
    ]
    np.testing.assert_array_equal(visualizer.get_image(), np.concatenate(expected, axis=1))
    assert out_file.exists()


def test_visualizer_without_ground_truth():
    """mmdet's pipelines pack empty ground truth if they load none."""
    visualizer = ResultVisualizer()
    visualizer.dataset_meta = {'classes': CLASSES, 'palette': PALETTE}
    sample = detection()
    sample.gt_instances = InstanceData()
    visualizer.add_datasample('x', IMAGE, sample, pred_score_thr=0.0)
    np.testing.assert_array_equal(visualizer.get_image(), draw(sample))
    np.testing.assert_array_equal(draw(sample, truth=True), IMAGE)


def test_enlarged_objects():
    sample = detection()
    enlarged = enlarge_sample(sample, 3)
    for name in ('pred_instances', 'gt_instances'):
        before, after = sample.get(name), enlarged.get(name)
        assert torch.equal(torch.as_tensor(after.bboxes), 3 * torch.tensor(BOXES).float())
        assert torch.equal(torch.as_tensor(before.bboxes), torch.tensor(BOXES).float())
        masks, small = after.masks, before.masks
        if isinstance(masks, BitmapMasks):
            masks, small = masks.masks, small.masks
        assert np.array_equal(np.asarray(masks)[:, ::3, ::3], np.asarray(small))
        assert masks.shape[1:] == (3 * HEIGHT, 3 * WIDTH)


def test_enlarged_sample_without_ground_truth():
    sample = DetDataSample(gt_instances=InstanceData())
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[1, 2]]]))
    enlarged = enlarge_sample(sample, 2)
    assert enlarged.pred_panoptic_seg.sem_seg.tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]
    assert sample.pred_panoptic_seg.sem_seg.shape == (1, 1, 2)
