"""Tests that the five kinds of models train and predict with any mmcv that is installed."""

import pytest
import torch
from mmdet.registry import MODELS as DET_MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS as SEG_MODELS
from mmseg.structures import SegDataSample

CHANNELS = 32
BACKBONE_CHANNELS = [8, 16, 32, 64]
NUM_CLASSES = 80
DETECTORS = {
    'mask-rcnn': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade-mask-rcnn': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'mask2former': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
}
LOW_PRECISION = pytest.mark.parametrize('bf16', [False, True], ids=['fp32', 'bf16'])


@pytest.fixture(autouse=True)
def default_scope(request):
    scope = 'mmseg' if 'upernet' in request.node.name else 'mmdet'
    with DefaultScope.overwrite_default_scope(scope):
        yield


@LOW_PRECISION
@pytest.mark.parametrize('name', DETECTORS)
def test_detector_trains_and_predicts(name, bf16):
    model = build_detector(name)
    data = demo_mm_inputs(
        2, [[3, 64, 96], [3, 96, 64]], num_items=[3, 2], num_classes=NUM_CLASSES, with_mask=True
    )
    with torch.autocast('cpu', enabled=bf16):
        check_training(model, data)
        predictions = predict(model, data)

    assert len(predictions) == 2
    for prediction in predictions:
        instances = prediction.pred_instances
        assert len(instances) > 0
        assert len(instances.bboxes) == len(instances.scores) == len(instances.labels)
        assert torch.isfinite(instances.scores).all()
        for boxes_or_scores in (instances.bboxes, instances.scores):
            assert boxes_or_scores.dtype == torch.float32
        if name != 'retinanet':
            assert instances.masks.shape == (len(instances), *prediction.ori_shape)


@LOW_PRECISION
def test_upernet_trains_and_predicts(bf16):
    model = build_upernet()
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo={'ori_shape': (64, 96), 'img_shape': (64, 96)})
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, 64, 96)))
        samples.append(sample)
    data = {
        'inputs': [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in samples],
        'data_samples': samples,
    }
    with torch.autocast('cpu', enabled=bf16):
        check_training(model, data)
        predictions = predict(model, data)

    for prediction in predictions:
        assert prediction.pred_sem_seg.shape == (64, 96)


def build_detector(name):
    config = get_config(f'mmdet::{DETECTORS[name]}').model
    config.backbone = tiny_resnet('mmdet')
    shrink(config, {256: CHANNELS, 1024: 2 * CHANNELS, 2048: 2 * CHANNELS, 128: CHANNELS // 2})
    # The numbers of regions and points used in training and prediction.
    shrink(config, {512: 64, 1000: 100, 2000: 100, 12544: 112})
    if name != 'mask2former':
        final = config.test_cfg.get('rcnn', config.test_cfg)
        final.update(score_thr=0.0, max_per_img=5)  # an untrained model has low scores
        config.neck.in_channels = BACKBONE_CHANNELS
        return DET_MODELS.build(config)
    head = config.panoptic_head
    head.in_channels = BACKBONE_CHANNELS
    head.num_queries = 10
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 3
    config.data_preprocessor.batch_augments = None
    return DET_MODELS.build(config)


def build_upernet():
    config = get_config('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py').model
    config.backbone = tiny_resnet('mmseg')
    shrink(config, {512: CHANNELS, 256: CHANNELS, 'SyncBN': 'BN'})
    config.decode_head.in_channels = BACKBONE_CHANNELS
    config.auxiliary_head.in_channels = BACKBONE_CHANNELS[2]
    config.data_preprocessor.size = (64, 96)
    return SEG_MODELS.build(config)


def tiny_resnet(scope):
    return {
        'type': f'{scope}.ResNet',
        'depth': 18,
        'base_channels': 8,
        'norm_cfg': {'type': 'BN'},
        'style': 'pytorch',
    }


def shrink(node, replacements):
    """Replaces widths (and types) everywhere in a model config."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, dict | list):
            shrink(value, replacements)
        elif value in replacements and not isinstance(value, float | bool):
            node[key] = replacements[value]


def check_training(model, data):
    model.train()
    losses = model(**model.data_preprocessor(data, training=True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


@torch.no_grad()
def predict(model, data):
    model.eval()
    return model(**model.data_preprocessor(data, training=False), mode='predict')
