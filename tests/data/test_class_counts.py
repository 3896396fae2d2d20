"""Tests that the numbers of classes in a model are compared with the classes of the data."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmseg.models import EncoderDecoder, UPerHead

from nat_mm.config.datasets import SPLITS
from nat_mm.data.class_counts import find_class_count_problems
from nat_mm.data.sources import find_sources

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTOR = 'detection/nat/mask_rcnn_nat_mini_3x_coco.py'
CASCADE = 'detection/nat/cascade_mask_rcnn_nat_mini_3x_coco.py'
INSTANCES = 'detection/mask2former/mask2former_dinat_large_100e_coco_instance.py'
PANOPTIC = 'detection/mask2former/mask2former_dinat_large_100e_coco_panoptic.py'
SEGMENTOR = 'segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py'
MASKS = 'segmentation/mask2former/mask2former_dinat_large_640x640_160k_ade20k.py'
CLASSIFIER = 'classification/nat/nat_mini_in1k_224.py'
LEAVES = sorted(path for path in CONFIGS.glob('*/*/*.py') if '_base_' not in path.parts)


@pytest.fixture(scope='module')
def read():
    """Reads a config once and returns copies of it."""
    configs = {}

    def read(name):
        if name not in configs:
            configs[name] = Config.fromfile(CONFIGS / name)
        init_default_scope(configs[name].default_scope)
        return copy.deepcopy(configs[name])

    return read


def problems_of(config):
    sources = {split: find_sources(config, split) for split in SPLITS}
    return list(find_class_count_problems(config, sources))


@pytest.fixture
def errors(read):
    """Returns the errors that overrides of a config cause."""

    def find(name, **overrides):
        config = read(name)
        config.merge_from_dict({key.replace('__', '.'): each for key, each in overrides.items()})
        return [each.text for each in problems_of(config) if each.is_error]

    return find


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_configs_of_this_project(path, read):
    assert problems_of(read(path.relative_to(CONFIGS))) == []


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('demo/*.py')), ids=lambda path: path.stem)
def test_demo_configs(path, read):
    assert problems_of(read(path.relative_to(CONFIGS))) == []


NAMES = tuple('abcdef')
HEADS = {
    DETECTOR: ['roi_head.bbox_head', 'roi_head.mask_head'],
    CASCADE: [*(f'roi_head.bbox_head.{index}' for index in range(3)), 'roi_head.mask_head'],
    SEGMENTOR: ['decode_head', 'auxiliary_head'],
    CLASSIFIER: ['head'],
}


def with_own_data(read, name, classes, *, splits=SPLITS):
    config = read(name)
    for split in splits:
        dataset = config[f'{split}_dataloader'].dataset
        dataset.metainfo = dict(classes=classes)
        if config.default_scope != 'mmdet':
            dataset.type = {'mmseg': 'BaseSegDataset', 'mmpretrain': 'CustomDataset'}[
                config.default_scope
            ]
            dataset.data_root = 'nowhere'
            dataset.pop('split', None)
    return config


@pytest.mark.parametrize('count', [5, 6, 7, 80])
@pytest.mark.parametrize('name', HEADS, ids=['detector', 'cascade', 'segmentor', 'classifier'])
def test_every_head(name, count, read):
    config = with_own_data(read, name, NAMES)
    keys = [f'model.{head}.num_classes' for head in HEADS[name]]
    config.merge_from_dict(dict.fromkeys(keys, count))
    # Mixing of batches and accuracy among the top 5 also depend on the number of classes.
    config.merge_from_dict({'data_preprocessor.num_classes': count, 'val_evaluator.topk': (1,)})
    config.test_evaluator = config.val_evaluator
    found = [each.text for each in problems_of(config)]
    if count == 6:
        assert found == []
        return
    wrong = ' and '.join(f'{key} is {count}' for key in keys)
    each = 'it' if len(keys) == 1 else 'each'
    assert found == [
        f'the train dataset has 6 classes, but {wrong}: set {each} to 6 '
        "(the classes are 'a', 'b', 'c', 'd', 'e', 'f')"
    ]


def test_one_head_of_a_list(errors):
    (text,) = errors(CASCADE, model__roi_head__bbox_head__1__num_classes=79)
    assert 'has 80 classes, but model.roi_head.bbox_head.1.num_classes is 79: set it to' in text


def test_default_of_a_head(read):
    config = with_own_data(read, DETECTOR, NAMES)
    config.model.roi_head.mask_head.num_classes = 6
    del config.model.roi_head.bbox_head.num_classes
    (problem,) = problems_of(config)
    assert 'model.roi_head.bbox_head.num_classes is 80 by default: set it to 6' in problem.text


def test_classes_that_are_forgotten(errors):
    heads = [f'model__{head.replace(".", "__")}__num_classes' for head in HEADS[DETECTOR]]
    (text,) = errors(DETECTOR, **dict.fromkeys(heads, 6))
    assert 'train_dataloader.dataset.metainfo names no classes and those of CocoDataset' in text


def test_masks_without_classes_of_their_own(read):
    """Class-agnostic masks are the same for any number of classes."""
    config = read(DETECTOR)
    config.model.roi_head.mask_head.update(class_agnostic=True, num_classes=3)
    assert problems_of(config) == []


def test_boxes_only(read):
    config = with_own_data(read, DETECTOR, NAMES)
    config.model.roi_head.mask_head = None
    config.model.roi_head.bbox_head.num_classes = 6
    assert problems_of(config) == []


@pytest.mark.parametrize('head', ['bbox_head', 'query_head'])
def test_detector_of_one_stage(head, read):
    config = with_own_data(read, DETECTOR, NAMES)
    config.model = dict(
        type='RetinaNet', backbone=config.model.backbone, **{head: dict(num_classes=80)}
    )
    (problem,) = problems_of(config)
    assert f'6 classes, but model.{head}.num_classes is 80: set it to 6' in problem.text


def test_loss_that_counts_classes(read):
    """SeesawLoss assumes 1203 classes by default."""
    config = with_own_data(read, DETECTOR, NAMES)
    config.model.roi_head.mask_head.num_classes = 6
    config.model.roi_head.bbox_head.update(num_classes=6, loss_cls=dict(type='SeesawLoss'))
    (problem,) = problems_of(config)
    assert 'model.roi_head.bbox_head.loss_cls.num_classes is 1203 by default' in problem.text


def test_instances_of_mask2former(read):
    config = with_own_data(read, INSTANCES, NAMES)
    texts = [each.text for each in problems_of(config)]
    keys = [
        f'model.{head}.num_things_classes is 80'
        for head in ('panoptic_head', 'panoptic_fusion_head')
    ]
    assert len(texts) == 1
    assert (
        f'the train dataset has 6 thing classes, but {" and ".join(keys)}: set each to 6'
        in texts[0]
    )


def test_panoptic_classes(read):
    config = read(PANOPTIC)
    for split in SPLITS:
        config[f'{split}_dataloader'].dataset.metainfo = dict(
            classes=NAMES, thing_classes=NAMES[:4], stuff_classes=NAMES[4:]
        )
    texts = [each.text for each in problems_of(config)]
    assert len(texts) == 2
    assert 'the train dataset has 4 thing classes, but model.panoptic_head.num_things' in texts[0]
    assert 'the train dataset has 2 stuff classes, but model.panoptic_head.num_stuff' in texts[1]


@pytest.mark.parametrize(
    ('name', 'key', 'expected'),
    [
        (INSTANCES, 'model__panoptic_head__loss_cls', 81),
        (PANOPTIC, 'model__panoptic_head__loss_cls', 134),
        (MASKS, 'model__decode_head__loss_cls', 151),
        (SEGMENTOR, 'model__decode_head__loss_decode', 150),
        (CLASSIFIER, 'model__head__loss', 1000),
    ],
    ids=['instances', 'panoptic', 'mask2former', 'segmentor', 'classifier'],
)
def test_weights_of_classes(name, key, expected, errors):
    (text,) = errors(name, **{f'{key}__class_weight': [1.0] * 7})
    assert text.startswith(f'{key.replace("__", ".")}.class_weight has 7 values, but ')
    assert f': give {expected}, one for each class' in text
    assert errors(name, **{f'{key}__class_weight': [1.0] * expected}) == []


@pytest.mark.parametrize(
    ('count', 'channels', 'classes'),
    [(2, 2, 2), (2, 1, 2), (1, 1, 2), (1, None, 2)],
)
def test_binary_segmentor(count, channels, classes, read):
    config = with_own_data(read, SEGMENTOR, NAMES[:classes])
    loss = dict(type='CrossEntropyLoss', use_sigmoid=count == 1 or channels == 1)
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.update(num_classes=count, out_channels=channels, loss_decode=loss)
    assert problems_of(config) == []


@MODELS.register_module()
class HeadWithGroups(UPerHead):
    """A head like those of hierarchical segmentation, which predict groups of classes, too."""

    def __init__(self, parts=None, **arguments):
        super().__init__(**arguments)


@MODELS.register_module()
class SegmentorWithEdges(EncoderDecoder):
    """A segmentor with a second head, which predicts something else."""

    def __init__(self, edge_head, **arguments):
        super().__init__(**arguments)


OF_A_HEAD = 'model.decode_head.num_classes is 8'
OF_ITS_PART = 'model.decode_head.parts.0.num_classes is 2'
OF_ANOTHER_HEAD = 'model.edge_head.num_classes is 1'
OF_A_USUAL_HEAD = 'model.auxiliary_head.num_classes is 5'


@pytest.mark.parametrize(
    ('overrides', 'expected'),
    [
        ({'decode_head.type': 'HeadWithGroups', 'decode_head.num_classes': 8}, OF_A_HEAD),
        (
            {
                'decode_head.type': 'HeadWithGroups',
                'decode_head.parts': [dict(type='mmseg.FCNHead', num_classes=2)],
            },
            OF_ITS_PART,
        ),
        (
            {
                'type': 'SegmentorWithEdges',
                'edge_head': dict(
                    type='FCNHead',
                    num_classes=1,
                    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
                ),
            },
            OF_ANOTHER_HEAD,
        ),
        ({'type': 'SegmentorWithEdges', 'auxiliary_head.num_classes': 5}, OF_A_USUAL_HEAD),
    ],
    ids=['head', 'part of a head', 'another head', 'usual head'],
)
def test_parts_of_users(overrides, expected, read):
    """They may count something else than the classes, unlike the heads that a toolbox has."""
    config = with_own_data(read, SEGMENTOR, NAMES)
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 6
    config.merge_from_dict({f'model.{key}': value for key, value in overrides.items()})
    (problem,) = problems_of(config)
    assert problem.text.startswith(f'the train dataset has 6 classes, but {expected}: set it to 6')
    assert problem.is_error == (expected == OF_A_USUAL_HEAD)


def test_softmax_of_one_class(read):
    config = with_own_data(read, SEGMENTOR, NAMES[:1])
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 1
    text = problems_of(config)[0].text
    assert 'model.decode_head.num_classes is 1, and the softmax of one class is always 1' in text


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [
        (NAMES[::-1], "they have 6 and 6, and class 0 is 'a' and 'f'"),
        (NAMES[:5], 'they have 6 and 5. '),
        (NAMES[:5] + ('g',), "they have 6 and 6, and class 5 is 'f' and 'g'"),
    ],
    ids=['order', 'one less', 'another'],
)
def test_parts_with_other_classes(classes, expected, read):
    config = with_own_data(read, SEGMENTOR, NAMES)
    config.val_dataloader.dataset.metainfo.classes = classes
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 6
    texts = [each.text for each in problems_of(config) if each.is_error]
    start = 'the classes of train_dataloader.dataset and val_dataloader.dataset differ: '
    assert texts[0].startswith(start + expected)


def test_other_spelling_is_only_a_warning(read):
    config = with_own_data(read, SEGMENTOR, ('traffic light', 'Car'))
    config.val_dataloader.dataset.metainfo.classes = ('traffic_light', 'car')
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 2
    assert {each.is_error for each in problems_of(config)} == {False}


def test_text_for_a_tuple(read):
    config = with_own_data(read, SEGMENTOR, 'road')
    texts = [each.text for each in problems_of(config)]
    assert "train_dataloader.dataset.metainfo.classes is the text 'road', not a tuple" in texts[0]
    assert "write classes=('road',), with the comma" in texts[0]


def test_validation_without_classes(read):
    config = with_own_data(read, SEGMENTOR, NAMES)
    del config.val_dataloader.dataset['metainfo']
    for head in (config.model.decode_head, config.model.auxiliary_head):
        head.num_classes = 6
    (problem,) = problems_of(config)
    assert problem.text.startswith('val_dataloader.dataset has no classes, which val needs')


def test_more_likeliest_than_classes(read):
    config = with_own_data(read, CLASSIFIER, NAMES[:3])
    config.model.head.num_classes = config.data_preprocessor.num_classes = 3
    texts = [each.text for each in problems_of(config)]
    assert texts[0].startswith('val_evaluator.topk is (1, 5), but model.head.num_classes is 3')
