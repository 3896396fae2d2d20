"""Tests that palettes that do not fit the classes are reported and completed."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData

import nat_mm  # noqa: F401
from nat_mm.data.palettes import complete_palettes, find_palette_problems
from nat_mm.data.sources import find_sources
from nat_mm.inference.palettes import complete_palette

CLASSES = ('box', 'disc', 'star')
RED, GREEN, BLUE = [250, 0, 0], [0, 250, 0], [0, 0, 250]


def make_config(kind: str, palette=None, **metainfo) -> Config:
    """Makes a config whose test dataset has three classes."""
    scope = {'CocoDataset': 'mmdet', 'BaseSegDataset': 'mmseg', 'ADE20KDataset': 'mmseg'}[kind]
    metainfo = {'classes': CLASSES, **metainfo}
    if palette is not None:
        metainfo['palette'] = palette
    dataset = {'type': kind, 'metainfo': metainfo, 'pipeline': [], 'test_mode': True}
    dataset = {'type': 'RepeatDataset', 'times': 2, 'dataset': dataset}
    return Config({'default_scope': scope, 'test_dataloader': {'dataset': dataset}})


FITTING = [
    ('CocoDataset', [RED, GREEN, BLUE]),
    ('CocoDataset', [RED, GREEN, BLUE, RED]),
    ('CocoDataset', 'random'),
    ('CocoDataset', (250, 0, 0)),
    ('CocoDataset', None),
    ('BaseSegDataset', [RED, GREEN, BLUE]),
    ('BaseSegDataset', (RED, GREEN, BLUE)),
    ('BaseSegDataset', []),
    ('BaseSegDataset', None),
]


@pytest.mark.parametrize(('kind', 'palette'), FITTING, ids=str)
def test_palettes_that_fit_stay_as_they_are(kind, palette):
    config = make_config(kind, palette)
    before = config.to_dict()
    assert list(find_palette_problems(config)) == []
    complete_palettes(config)
    assert config.to_dict() == before


def test_classes_selected_from_those_of_the_type():
    config = make_config('ADE20KDataset', classes=('wall', 'sky'))
    assert list(find_palette_problems(config)) == []
    (source,) = find_sources(config, 'test')
    assert len(source.dataset.metainfo['palette']) == 2


@pytest.mark.parametrize(
    ('kind', 'palette', 'text'),
    [
        ('CocoDataset', [RED], 'has 1 color(s) for 3 classes'),
        ('CocoDataset', [], 'has 0 color(s) for 3 classes'),
        ('CocoDataset', [RED, GREEN, [300, 0, 0]], 'has [300, 0, 0], but a color is '),
        ('CocoDataset', [250, 0, 0], 'has 250, 0, 0, but a color is [red, green, blue] from 0'),
        ('CocoDataset', [RED, 'green', BLUE], "has 'green', but a color is "),
        ('BaseSegDataset', [RED, GREEN], 'has 2 color(s) for 3 classes'),
        ('BaseSegDataset', [RED, GREEN, BLUE, RED], 'has 4 color(s) for 3 classes'),
        ('BaseSegDataset', [RED, GREEN, [0.5, 0, 0]], 'has [0.5, 0, 0], but a color is '),
    ],
    ids=str,
)
def test_palettes_that_do_not_fit_are_named_and_completed(kind, palette, text):
    config = make_config(kind, palette)
    (finding,) = find_palette_problems(config)
    assert f'test_dataloader.dataset.dataset.metainfo.palette {text}' in finding.text
    assert not finding.is_error
    (source,) = find_sources(config, 'test')
    assert len(source.dataset.metainfo['palette']) == 3
    complete_palettes(config)
    completed = config.test_dataloader.dataset.dataset.metainfo.palette
    assert len({tuple(color) for color in completed}) == 3
    for given, color in zip(palette, completed, strict=False):
        if given in (RED, GREEN, BLUE):
            assert list(color) == given


def test_more_classes_than_the_type_has_colors():
    config = make_config('CocoDataset', classes=[f'{number}' for number in range(81)])
    (finding,) = find_palette_problems(config)
    assert 'has 80 color(s) for 81 classes' in finding.text
    complete_palettes(config)
    assert len(config.test_dataloader.dataset.dataset.metainfo.palette) == 81


def test_the_same_palette_of_several_datasets_is_named_once():
    config = make_config('CocoDataset', [RED])
    config.val_dataloader = config.test_dataloader
    assert len(list(find_palette_problems(config))) == 1


def test_made_up_colors_are_new():
    made_up = complete_palette([], 8)
    assert len(set(made_up)) == 8
    assert len(set(complete_palette([made_up[5], [1, 2, 3]], 8))) == 8


def test_detections_are_drawn():
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer

    config = make_config('CocoDataset', [RED])
    complete_palettes(config)
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = config.test_dataloader.dataset.dataset.metainfo
    instances = InstanceData(
        bboxes=torch.tensor([[2.0, 2, 30, 30], [9, 9, 50, 30]]),
        labels=torch.tensor([0, 2]),
        scores=torch.ones(2),
    )
    sample = DetDataSample(pred_instances=instances)
    visualizer.add_datasample('x', np.zeros((40, 60, 3), np.uint8), sample, draw_gt=False)
    assert visualizer.get_image().any()


def test_segmentations_are_drawn():
    from mmseg.structures import SegDataSample
    from mmseg.visualization import SegLocalVisualizer

    config = make_config('BaseSegDataset', [RED])
    complete_palettes(config)
    visualizer = SegLocalVisualizer(alpha=1.0)
    visualizer.dataset_meta = config.test_dataloader.dataset.dataset.metainfo
    labels = torch.zeros(1, 40, 60, dtype=torch.long)
    labels[:, :20] = 2
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    image = np.zeros((40, 60, 3), np.uint8)
    visualizer.add_datasample('x', image, sample, draw_gt=False, with_labels=False)
    drawn = visualizer.get_image()
    assert drawn[30, 30].tolist() == RED
    assert drawn[10, 30].any()
