"""Tests that evaluators without ground truth are found before training."""

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nat_mm.data.ground_truth import find_missing_ground_truth
from nat_mm.data.sources import find_sources

LOAD = dict(type='LoadImageFromFile')
ANNOTATIONS = dict(type='LoadAnnotations')
SEGMENTS = dict(type='mmseg.BaseSegDataset', metainfo=dict(classes=('a', 'b')))
OBJECTS = dict(type='mmdet.CocoDataset', ann_file='val.json')
CLASSES = dict(type='mmpretrain.CustomDataset', data_root='gone')


def texts(dataset, evaluator, *transforms):
    scope = dataset['type'].partition('.')[0]
    pytest.importorskip(scope)
    init_default_scope(scope)
    loader = dict(dataset=dict(dataset, pipeline=[LOAD, *transforms]))
    config = Config(dict(default_scope=scope, val_dataloader=loader, val_evaluator=evaluator))
    sources = find_sources(config, 'val')
    assert len(sources) == 1
    return [each.text for each in find_missing_ground_truth(config, 'val', sources)]


@pytest.mark.parametrize(
    ('dataset', 'evaluator', 'place'),
    [
        (SEGMENTS, dict(type='IoUMetric'), 'val_evaluator'),
        (SEGMENTS, [dict(type='CityscapesMetric'), dict(type='IoUMetric')], 'val_evaluator.1'),
        (OBJECTS, dict(type='CocoMetric'), 'val_evaluator'),
        (OBJECTS, dict(type='VOCMetric'), 'val_evaluator'),
    ],
    ids=['segments', 'second metric', 'objects', 'objects like VOC'],
)
def test_pipeline_without_annotations(dataset, evaluator, place):
    (text,) = texts(dataset, evaluator)
    start = f'{place} needs the ground truth, but val_dataloader.dataset.pipeline does not load it'
    assert text.startswith(start)
    assert texts(dataset, evaluator, ANNOTATIONS) == []


@pytest.mark.parametrize('metric', ['Accuracy', 'SingleLabelMetric', 'ConfusionMatrix'])
def test_images_without_labels(metric):
    (text,) = texts(dict(CLASSES, with_label=False), dict(type=metric))
    assert 'val_dataloader.dataset.with_label is False: set it to True' in text
    assert texts(CLASSES, dict(type=metric)) == []


@pytest.mark.parametrize(
    ('dataset', 'evaluator', 'transforms'),
    [
        (SEGMENTS, dict(type='IoUMetric', format_only=True, output_dir='out'), []),
        (SEGMENTS, None, []),
        (OBJECTS, dict(type='CocoMetric', ann_file='val.json'), []),
        (
            SEGMENTS,
            dict(type='IoUMetric'),
            [
                dict(
                    type='TestTimeAug',
                    transforms=[[dict(type='RandomFlip', prob=0.5)], [ANNOTATIONS]],
                )
            ],
        ),
        (
            OBJECTS,
            dict(type='CocoMetric'),
            [dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'instances'))],
        ),
    ],
    ids=['only predictions', 'no evaluator', 'annotation file', 'nested', 'packed as they are'],
)
def test_what_needs_none_or_may_have_it(dataset, evaluator, transforms):
    assert texts(dataset, evaluator, *transforms) == []


@pytest.mark.parametrize(
    ('dataset', 'model', 'is_found'),
    [
        (SEGMENTS, dict(decode_head={}), True),
        (OBJECTS, dict(rpn_head={}, roi_head={}), True),
        (CLASSES, dict(head={}), False),
        (OBJECTS, dict(backbone={}), False),
    ],
    ids=['segmentor', 'detector', 'classifier', 'without a head'],
)
@pytest.mark.parametrize('wrapper', [None, 'RepeatDataset', 'MultiImageMixDataset'])
def test_training_without_annotations(dataset, model, is_found, wrapper):
    scope = dataset['type'].partition('.')[0]
    pytest.importorskip(scope)
    init_default_scope(scope)
    dataset = dict(dataset, pipeline=[LOAD])
    if wrapper == 'RepeatDataset':
        dataset = dict(type=wrapper, dataset=dataset, times=2)
    elif wrapper:
        dataset = dict(type=wrapper, dataset=dataset, pipeline=[ANNOTATIONS])
    loader = dict(dataset=dataset)
    config = Config(dict(default_scope=scope, train_dataloader=loader, model=model))
    found = list(find_missing_ground_truth(config, 'train', find_sources(config, 'train')))
    assert len(found) == (is_found and wrapper != 'MultiImageMixDataset')
    for each in found:
        assert each.text.startswith('model needs the ground truth, but train_dataloader.dataset')


def test_own_transforms_may_load_it():
    from mmcv.transforms import TRANSFORMS, BaseTransform

    @TRANSFORMS.register_module()
    class ReadMyFormat(BaseTransform):
        def transform(self, results):
            return results

    try:
        assert texts(SEGMENTS, dict(type='IoUMetric'), dict(type='ReadMyFormat')) == []
    finally:
        del TRANSFORMS._module_dict['ReadMyFormat']


def test_own_metrics_may_have_it():
    from mmseg.evaluation import IoUMetric
    from mmseg.registry import METRICS

    @METRICS.register_module()
    class MyMetric(IoUMetric):
        def process(self, data_batch, data_samples):
            pass

    try:
        assert texts(SEGMENTS, dict(type='MyMetric')) == []
    finally:
        del METRICS._module_dict['MyMetric']


def test_own_models_may_learn_from_images_alone():
    from mmseg.models import EncoderDecoder
    from mmseg.registry import MODELS

    @MODELS.register_module()
    class Adapted(EncoderDecoder):
        pass

    init_default_scope('mmseg')
    loader = dict(dataset=dict(SEGMENTS, pipeline=[LOAD]))
    model = dict(type='Adapted', decode_head={})
    config = Config(dict(default_scope='mmseg', train_dataloader=loader, model=model))
    try:
        found = find_missing_ground_truth(config, 'train', find_sources(config, 'train'))
        assert list(found) == []
    finally:
        del MODELS._module_dict['Adapted']
