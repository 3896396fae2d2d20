"""Tests the data pipelines of the configs on generated images."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

CONFIGS = Path(__file__).parents[2] / 'configs'


def load(path, small_data):
    """Loads a config and points its data to the small dataset."""
    config = Config.fromfile(CONFIGS / path)
    init_default_scope(config.default_scope)
    for part, name in (('train', 'training'), ('val', 'validation'), ('test', 'validation')):
        dataset = config[f'{part}_dataloader'].dataset
        dataset.data_root = str(small_data)
        if config.default_scope == 'mmdet':
            dataset.ann_file = f'coco/{name}.json'
            dataset.data_prefix = dict(img=f'images/{name}')
            dataset.metainfo = dict(classes=('box', 'disc'))
    return config


@pytest.fixture
def detection(small_data):
    return load('detection/nat/mask_rcnn_nat_mini_3x_coco.py', small_data)


SEGMENTATION_CONFIGS = sorted(
    path
    for pattern in ('segmentation/[!_]*/*.py', '_base_/finetune/upernet*.py', 'demo/upernet*.py')
    for path in CONFIGS.glob(pattern)
)

SEGMENTORS = {
    512: 'segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py',
    640: 'segmentation/dinat_s/upernet_dinat_s_large_640x640_160k_ade20k.py',
}


@pytest.fixture(params=SEGMENTORS)
def segmentation(request, small_data):
    """A config for each crop size, and that size."""
    return load(SEGMENTORS[request.param], small_data), request.param


def test_detection_training_pipeline_is_multi_scale(detection):
    dataset = DATASETS.build(detection.train_dataloader.dataset)
    assert len(dataset) == 6
    sizes, cropped = set(), 0
    for repeat in range(5):
        for index in range(len(dataset)):
            np.random.seed(len(dataset) * repeat + index)
            sample = dataset[index]
            height, width = sample['inputs'].shape[1:]
            truth = sample['data_samples'].gt_instances
            assert len(truth.bboxes) == len(truth.masks.masks) == len(truth.labels)
            assert truth.masks.masks.shape[1:] == (height, width)
            assert max(height, width) <= 1333
            sizes.add(min(height, width))
            # The images are 4:3, so any other shape was cropped to at most 384 x 600.
            cropped += abs(width / height - 4 / 3) > 0.02
    assert len(sizes) > 5
    assert sizes <= set(range(480, 801, 32))
    assert 5 < cropped < 25


def test_no_detection_picture_is_resized_beyond_1333_pixels(detection):
    (choice,) = [t for t in detection.train_dataloader.dataset.pipeline if t.type == 'RandomChoice']
    resizes = [t for branch in choice.transforms for t in branch if t.type == 'RandomChoiceResize']
    sides = [tuple(zip(*resize.scales, strict=True)) for resize in resizes]
    multiscale = tuple(range(480, 801, 32))
    assert [short for short, _ in sides] == [multiscale, (400, 500, 600), multiscale]
    assert {long for _, longs in sides for long in longs} == {1333}


def test_detection_test_pipeline(detection):
    sample = DATASETS.build(detection.test_dataloader.dataset)[0]
    assert sample['inputs'].shape == (3, 800, 1067)
    assert sample['data_samples'].ori_shape == (96, 128)


def test_detection_tta_pipeline(detection):
    dataset = detection.test_dataloader.dataset
    dataset.pipeline = detection.tta_pipeline
    sample = DATASETS.build(dataset)[0]
    shapes = [tuple(picture.shape[1:]) for picture in sample['inputs']]
    flips = [view.flip for view in sample['data_samples']]
    assert sorted(zip(shapes, flips, strict=True)) == [
        ((640, 853), False),
        ((640, 853), True),
        ((800, 1067), False),
        ((800, 1067), True),
    ]


def test_segmentation_training_pipeline(segmentation):
    config, size = segmentation
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert len(dataset) == 6
    largest = 0
    for index in range(len(dataset)):
        np.random.seed(index)
        sample = dataset[index]
        height, width = sample['inputs'].shape[1:]
        largest = max(largest, height, width)
        labels = sample['data_samples'].gt_sem_seg.data
        assert labels.shape == (1, height, width)
        assert set(labels.unique().tolist()) <= {0, 1, 2}
    assert largest == size


def test_segmentation_test_pipeline(segmentation):
    config, size = segmentation
    sample = DATASETS.build(config.test_dataloader.dataset)[0]
    assert sample['inputs'].shape == (3, size, round(size * 4 / 3))
    assert sample['data_samples'].gt_sem_seg.shape == (96, 128)


def test_segmentation_tta_pipeline(segmentation):
    config, _ = segmentation
    dataset = config.test_dataloader.dataset
    plain = DATASETS.build(dataset)[0]['data_samples'].gt_sem_seg
    dataset.pipeline = config.tta_pipeline
    sample = DATASETS.build(dataset)[0]
    assert len(sample['inputs']) == 12
    widths = sorted({picture.shape[2] for picture in sample['inputs']})
    assert widths == [round(128 * ratio) for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]
    assert all((view.gt_sem_seg.data == plain.data).all() for view in sample['data_samples'])


@pytest.mark.parametrize(
    'path', SEGMENTATION_CONFIGS, ids=lambda path: f'{path.parent.name}-{path.stem}'
)
def test_segmentation_configs_name_their_test_pipeline(path):
    """mmseg.apis.inference_model reads it from there, and not from test_dataloader."""
    config = Config.fromfile(path)
    for step in config.test_pipeline:
        step.pop('_scope_', None)  # mmengine adds it to what mmseg's configs define
    assert config.test_pipeline == config.test_dataloader.dataset.pipeline


def test_inference_model_of_mmseg():
    apis = pytest.importorskip('mmseg.apis')
    image = np.random.default_rng(0).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    model = apis.init_model(str(CONFIGS / 'demo/upernet_nat_demo.py'), device='cpu')
    result = apis.inference_model(model, image)
    assert result.pred_sem_seg.shape == (48, 72)
