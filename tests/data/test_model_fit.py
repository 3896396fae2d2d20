"""Tests that necks and heads that do not fit their backbone are reported, and others pass."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder

from nat_mm.data.loaders import last_training_batch
from nat_mm.data.model_fit import find_model_problems
from nat_mm.data.model_parts import find_steps
from nat_mm.data.sources import DataSource

ROOT = Path(__file__).parents[2]
NAT = {
    'type': 'NAT',
    'embed_dim': 32,
    'depths': (1, 1, 1, 1),
    'num_heads': (1, 2, 4, 8),
    'kernel_size': 3,
    'mlp_ratio': 1.0,
}
NECK = {'in_channels': [32, 64, 128, 256]}
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
FASTER_RCNN = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
FCOS = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
RTMDET = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'
RTMDET_INS = 'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'
ATSS = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
YOLOX = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
MASK2FORMER = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
UPERNET = 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
POINT_REND = 'mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py'
PSPNET = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'
RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'


def load(tmp_path: Path, base: str, model: dict | None = None, **rest) -> Config:
    """Loads a toolbox config with a small NAT, or without ``model`` with its own backbone."""
    lines = [f'_base_ = {base!r}', *(f'{key} = {value!r}' for key, value in rest.items())]
    if model is not None:
        backbone = {'_delete_': True, **NAT, **model.get('backbone', {})}
        lines.append(f'model = { ({**model, "backbone": backbone})!r}')
    path = tmp_path / 'config.py'
    path.write_text('\n'.join(lines))
    return Config.fromfile(path)


def out(*indices: int) -> dict:
    return {'out_indices': indices}


WRONG = {
    'fpn-of-another-variant': (
        (RETINANET, {'neck': {'in_channels': [64, 128, 256, 512]}}),
        'model.neck.in_channels is [64, 128, 256, 512], but model.backbone gives 4 feature maps of '
        '[32, 64, 128, 256] channels: write in_channels=[32, 64, 128, 256]',
    ),
    'fpn-from-the-first-level': (
        (RETINANET, {'neck': {**NECK, 'start_level': 0}}),
        'model.bbox_head.anchor_generator.strides is [8, 16, 32, 64, 128], but model.neck gives 5 '
        'feature maps of 256 channels of strides [4, 8, 16, 32, 64]: write '
        'strides=[4, 8, 16, 32, 64]',
    ),
    'too-few-levels-for-anchors': (
        (FASTER_RCNN, {'neck': {**NECK, 'num_outs': 4}}),
        'model.rpn_head.anchor_generator.strides is [4, 8, 16, 32, 64], but model.neck gives 4 ',
    ),
    'extractor-of-finer-levels': (
        (
            FASTER_RCNN,
            {
                'backbone': out(1, 2, 3),
                'neck': {'in_channels': [64, 128, 256]},
                'rpn_head': {'anchor_generator': {'strides': [8, 16, 32, 64, 128]}},
            },
        ),
        'model.roi_head.bbox_roi_extractor.featmap_strides is [4, 8, 16, 32], but model.neck gives '
        '5 feature maps of 256 channels of strides [8, 16, 32, 64, 128]: write '
        'featmap_strides=[8, 16, 32, 64]',
    ),
    'extractor-of-other-channels': (
        (
            FASTER_RCNN,
            {'neck': {**NECK, 'out_channels': 128}, 'rpn_head': {'in_channels': 128}},
        ),
        'model.roi_head.bbox_roi_extractor.out_channels is 256, but model.neck gives 5 feature '
        'maps of 128 channels: write out_channels=128',
    ),
    'box-head-of-other-cells': (
        (
            MASK_RCNN,
            {
                'neck': NECK,
                'roi_head': {'bbox_roi_extractor': {'roi_layer': {'output_size': 14}}},
            },
        ),
        'model.roi_head.bbox_head.roi_feat_size is (7, 7), but '
        'model.roi_head.bbox_roi_extractor gives 14 x 14 cells: write 14',
    ),
    'mask-head-of-other-channels': (
        (MASK_RCNN, {'neck': NECK, 'roi_head': {'mask_head': {'in_channels': 128}}}),
        'model.roi_head.mask_head.in_channels is 128, but model.roi_head.mask_roi_extractor gives '
        '1 feature map of 256 channels: write in_channels=256',
    ),
    'strides-of-points': (
        (FCOS, {'neck': {**NECK, 'start_level': 0}}),
        'model.bbox_head.strides is [8, 16, 32, 64, 128], but model.neck gives',
    ),
    'rtmdet-of-four-levels': (
        (RTMDET, {'neck': NECK}),
        'model.bbox_head.anchor_generator.strides is [8, 16, 32], but model.neck gives 4 feature '
        'maps of 128 channels of strides [4, 8, 16, 32]: write model.backbone.out_indices=(1, 2, '
        '3) and model.neck.in_channels=[64, 128, 256]',
    ),
    'rtmdet-ins-of-all-levels': (
        (RTMDET_INS, {}),
        'model.neck.in_channels is [128, 256, 512], but model.backbone gives 4 feature maps of '
        '[32, 64, 128, 256] channels: write model.backbone.out_indices=(1, 2, 3) and '
        'model.neck.in_channels=[64, 128, 256]',
    ),
    'rtmdet-of-finer-levels': (
        (RTMDET, {'backbone': out(0, 1, 2), 'neck': {'in_channels': [32, 64, 128]}}),
        'of strides [4, 8, 16]: write strides=[4, 8, 16]',
    ),
    'yolox-of-all-levels': (
        (YOLOX, {}),
        'model.neck.in_channels is [128, 256, 512], but model.backbone gives 4 feature maps',
    ),
    'yolox-of-four-levels': (
        (YOLOX, {'neck': NECK}),
        'model.bbox_head.strides is [8, 16, 32], but model.neck gives 4 feature maps of 128 '
        'channels of strides [4, 8, 16, 32]: write model.backbone.out_indices=(1, 2, 3) and '
        'model.neck.in_channels=[64, 128, 256]',
    ),
    'atss-from-stride-16': (
        (ATSS, {'backbone': out(1, 2, 3), 'neck': {'in_channels': [64, 128, 256]}}),
        'model.bbox_head.anchor_generator.strides is [8, 16, 32, 64, 128], but model.neck gives 5 '
        'feature maps of 256 channels of strides [16, 32, ',
    ),
    'dino-of-all-levels': (
        (DINO, {}),
        'model.neck.in_channels is [512, 1024, 2048], but model.backbone gives 4 feature maps of '
        '[32, 64, 128, 256] channels: write model.backbone.out_indices=(1, 2, 3) and '
        'model.neck.in_channels=[64, 128, 256]',
    ),
    'dino-of-other-channels': (
        (
            DINO,
            {
                'backbone': out(1, 2, 3),
                'neck': {'in_channels': [64, 128, 256], 'out_channels': 128},
            },
        ),
        "the transformer's embed_dims is 256, but model.neck gives 4 feature maps of 128 channels",
    ),
    'dino-of-five-levels': (
        (
            DINO,
            {'backbone': out(1, 2, 3), 'neck': {'in_channels': [64, 128, 256], 'num_outs': 5}},
        ),
        'model.num_feature_levels is 4, but model.neck gives 5 feature maps of 256 channels: write '
        'model.neck.num_outs=4',
    ),
    'dino-with-attention-to-four-levels': (
        (DINO, {'neck': {**NECK, 'num_outs': 5}, 'num_feature_levels': 5}),
        'model.encoder.layers.0.self_attn attends to 4 levels, but model.neck gives 5 ',
    ),
    'mask2former-of-another-backbone': (
        (MASK2FORMER, {}),
        'model.panoptic_head.in_channels is [256, 512, 1024, 2048], but model.backbone gives 4 ',
    ),
    'mask2former-of-three-levels': (
        (
            MASK2FORMER,
            {'backbone': out(1, 2, 3), 'panoptic_head': {'in_channels': [64, 128, 256]}},
        ),
        'model.panoptic_head.pixel_decoder.strides is [4, 8, 16, 32], but model.backbone gives 3 '
        'feature maps of [64, 128, 256] channels of strides [8, 16, 32]: write strides=[8, 16, 32]',
    ),
    'ssd-neck': (
        ('mmdet::ssd/ssd300_coco.py', {'neck': {'in_channels': (128, 256)}}),
        'model: SSDNeck does not accept its arguments: assert ',
    ),
    'neck-that-needs-even-sizes': (
        (
            RETINANET,
            {
                'data_preprocessor': {'pad_size_divisor': 1},
                'neck': {
                    '_delete_': True,
                    'type': 'YOLOXPAFPN',
                    'in_channels': [64, 128, 256],
                    'out_channels': 256,
                },
                'backbone': out(1, 2, 3),
                'bbox_head': {'anchor_generator': {'strides': [8, 16, 32]}},
            },
        ),
        'model.neck only takes images whose sides are multiples of 32, but '
        'model.data_preprocessor.pad_size_divisor is 1: write pad_size_divisor=32',
    ),
    'channels-of-images': (
        (RETINANET, {'backbone': {'in_channels': 4}, 'neck': NECK}),
        'model.backbone.in_channels is 4, but model.data_preprocessor.mean has 3 values',
    ),
    'segformer-of-another-backbone': (
        (SEGFORMER, {}),
        'model.decode_head.in_channels is [32, 64, 160, 256], but model.backbone gives 4 feature '
        'maps of [32, 64, 128, 256] channels: write in_channels=[32, 64, 128, 256]',
    ),
    'point-rend-with-weights-of-a-resnet': (
        (POINT_REND, {'neck': NECK}),
        "model.pretrained is 'open-mmlab://resnet50_v1c', which NAT does not take: write "
        'pretrained=None, and weights into model.backbone.init_cfg as dict(',
    ),
    'weights-of-a-resnet-for-a-type-with-a-scope': (
        (POINT_REND, {'neck': NECK, 'backbone': {'type': 'mmengine.NAT'}}),
        "model.pretrained is 'open-mmlab://resnet50_v1c', which NAT does not take: write ",
    ),
    'point-rend-of-another-backbone': (
        (POINT_REND, {'pretrained': None}),
        'model.neck.in_channels is [256, 512, 1024, 2048], but model.backbone gives 4 ',
    ),
    'segmentor-of-another-variant': (
        (UPERNET, {'auxiliary_head': {'in_channels': 128}}),
        'model.decode_head.in_channels is [96, 192, 384, 768], but model.backbone gives 4 feature '
        'maps of [32, 64, 128, 256] channels: write in_channels=[32, 64, 128, 256]',
    ),
    'segmentor-of-three-levels': (
        (
            UPERNET,
            {
                'backbone': out(1, 2, 3),
                'decode_head': NECK,
                'auxiliary_head': {'in_channels': 256},
            },
        ),
        'model.decode_head.in_index is [0, 1, 2, 3], but model.backbone gives 3 feature maps of '
        '[64, 128, 256] channels: its indices are 0 to 2',
    ),
    'auxiliary-head-of-another-variant': (
        (UPERNET, {'decode_head': NECK}),
        'model.auxiliary_head.in_channels is 384, but model.backbone gives 4 feature maps of '
        '[32, 64, 128, 256] channels: write in_channels=128',
    ),
    'second-input-of-deeplab': (
        (
            'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
            {
                'pretrained': None,
                'decode_head': {'in_channels': 256},
                'auxiliary_head': {'in_channels': 128},
            },
        ),
        'model.decode_head.c1_bottleneck.conv takes 256 channels, but gets 32',
    ),
    'classifier-of-another-variant': (
        (RESNET, {'backbone': out(3)}),
        'model.head.in_channels is 2048, but model.neck gives 1 vector of 256 channels: write '
        'in_channels=256',
    ),
    'classifier-without-pooling': (
        (RESNET, {'backbone': out(3), 'neck': None, 'head': {'in_channels': 256}}),
        'model.head takes vectors, but model.backbone gives 1 feature map of 256 channels: put '
        "neck=dict(type='GlobalAveragePooling') between them",
    ),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_does_not_fit_is_named(tmp_path, name):
    (base, model), text = WRONG[name]
    findings = list(find_model_problems(load(tmp_path, base, model)))
    assert len(findings) == 1
    assert text in findings[0].text
    assert findings[0].is_error


def test_fine_levels_of_dino_are_a_warning(tmp_path):
    (finding,) = find_model_problems(load(tmp_path, DINO, {'neck': NECK}))
    assert 'the finest of stride 4' in finding.text
    assert 'write model.backbone.out_indices=(1, 2, 3)' in finding.text
    assert not finding.is_error


@pytest.mark.parametrize(
    ('base', 'model'),
    [
        (RETINANET, {'neck': NECK}),
        (MASK_RCNN, {'neck': NECK}),
        (DINO, {'backbone': out(1, 2, 3), 'neck': {'in_channels': [64, 128, 256]}}),
        (RTMDET, {'backbone': out(1, 2, 3), 'neck': {'in_channels': [64, 128, 256]}}),
        (MASK2FORMER, {'panoptic_head': NECK}),
        (RETINANET, None),
        (FASTER_RCNN, None),
        (FCOS, None),
        (DINO, None),
        (RTMDET, None),
        (MASK2FORMER, None),
        ('mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py', None),
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', None),
        ('mmdet::ssd/ssd300_coco.py', None),
        ('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', None),
        ('mmdet::reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20.py', None),
        (UPERNET, None),
        (PSPNET, None),
        ('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', None),
        (RESNET, None),
        ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', None),
        ('mmpretrain::swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.py', None),
    ],
    ids=lambda value: value.rpartition('/')[2] if isinstance(value, str) else 'NAT' * bool(value),
)
def test_what_fits_passes(tmp_path, base, model):
    assert list(find_model_problems(load(tmp_path, base, model))) == []


@pytest.mark.parametrize(
    'model',
    [
        {'decode_head': {'in_channels': [64, 128, 256, 512]}},
        {'backbone': {'in_channels': 3}, 'data_preprocessor': {'mean': [0] * 6, 'std': [1] * 6}},
    ],
    ids=['joined maps', 'two images'],
)
def test_own_models_may_combine_maps(tmp_path, model):
    class Siamese(EncoderDecoder):
        def extract_feat(self, inputs):
            raise NotImplementedError

    model = {'auxiliary_head': {'in_channels': 128}, 'pretrained': None, **model}
    config = load(tmp_path, UPERNET, model)
    assert list(find_model_problems(config))
    config.model.type = Siamese
    assert list(find_model_problems(config)) == []


@pytest.mark.parametrize(
    'path',
    [
        'demo/mask_rcnn_nat_demo.py',
        'demo/upernet_nat_demo.py',
        'detection/mask2former/mask2former_dinat_large_100e_coco_panoptic.py',
        'segmentation/mask2former/mask2former_dinat_large_640x640_160k_ade20k.py',
        'classification/dinat/dinat_mini_in1k_224.py',
    ],
)
def test_own_configs_pass(path):
    assert list(find_model_problems(Config.fromfile(ROOT / 'configs' / path))) == []


def test_images_smaller_than_the_backbone_takes(tmp_path):
    base = 'nat_mm::_base_/finetune/upernet_nat_demo.py'
    config = load(tmp_path, base)
    config.train_dataloader = None
    config.model.data_preprocessor.size = (16, 24)
    texts = [each.text for each in find_model_problems(config)]
    assert texts == ['model.backbone: images must be at least 32 x 32, got 16 x 24 (H x W)']


def test_weights_take_no_memory(tmp_path):
    from nat_mm.data.shape_trace import ShapeTrace

    trace = ShapeTrace(load(tmp_path, MASK_RCNN, {'neck': NECK}), (64, 96), 3)
    assert {each.device for each in trace.model.state_dict().values()} == {torch.device('meta')}


PYRAMID_POOLING = {'decode_head': NECK, 'auxiliary_head': {'in_channels': 128}}
BN = {'type': 'BN', 'requires_grad': True}


@pytest.mark.parametrize(
    ('base', 'model', 'place'),
    [
        (UPERNET, PYRAMID_POOLING, 'decode_head.psp_modules.0.1.bn'),
        (PSPNET, {'pretrained': None, 'decode_head': {'in_channels': 256},
                  'auxiliary_head': {'in_channels': 128}}, 'decode_head.psp_modules.0.1.bn'),
        ('mmseg::deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py',
         {'pretrained': None, 'decode_head': {'in_channels': 256},
          'auxiliary_head': {'in_channels': 128}}, 'decode_head.image_pool.1.bn'),
    ],
    ids=['upernet', 'pspnet', 'deeplab'],
)  # fmt: skip
def test_batch_of_one_with_batch_norm(tmp_path, base, model, place):
    for head in ('decode_head', 'auxiliary_head'):
        model = {**model, head: {**model[head], 'norm_cfg': BN}}
    loader = {'batch_size': 1}
    (finding,) = find_model_problems(load(tmp_path, base, model, train_dataloader=loader))
    assert f'train_dataloader.batch_size is 1, but model.{place} normalizes' in finding.text
    assert "norm_cfg=dict(type='GN', num_groups=32) in model.decode_head" in finding.text
    assert finding.is_error


@pytest.mark.parametrize(
    ('changes', 'is_error'),
    [
        ({}, False),
        ({'launcher': 'none'}, True),
        ({'launcher': 'pytorch'}, None),
        ({'train_dataloader': {'batch_size': 2}}, None),
    ],
    ids=['launcher-not-known', 'one-process', 'more-processes', 'batch-of-two'],
)
def test_batch_of_one_with_synchronized_batch_norm(tmp_path, changes, is_error):
    rest = {'train_dataloader': {'batch_size': 1}, **changes}
    findings = list(find_model_problems(load(tmp_path, UPERNET, PYRAMID_POOLING, **rest)))
    assert [each.is_error for each in findings] == ([] if is_error is None else [is_error])


DINO_OF_10 = {
    'backbone': out(1, 2, 3),
    'neck': {'in_channels': [64, 128, 256]},
    'num_queries': 10,
    'bbox_head': {'num_classes': 3},
}
SEVEN_MASKS = {'panoptic_head': {**NECK, 'num_queries': 7, 'num_things_classes': 3},
               'panoptic_fusion_head': {'num_things_classes': 3}}  # fmt: skip


@pytest.mark.parametrize(
    ('base', 'model', 'text'),
    [
        (
            DINO,
            DINO_OF_10,
            'max_per_img in model.test_cfg is 300, but model.num_queries is 10, with 3 scores '
            'each: write max_per_img=30 or less, or at least num_queries=100',
        ),
        (
            'mmdet::detr/detr_r50_8xb2-150e_coco.py',
            {'num_queries': 30, 'neck': {'in_channels': [256]}, 'backbone': out(3)},
            'max_per_img in model.test_cfg is 100, but model.num_queries is 30, with one score ',
        ),
        (
            MASK2FORMER,
            SEVEN_MASKS,
            'max_per_image in model.test_cfg is 100, but model.panoptic_head.num_queries is 7, '
            'with 3 scores each: ',
        ),
    ],
    ids=['dino', 'detr', 'mask2former'],
)
def test_fewer_scores_than_results(tmp_path, base, model, text):
    config = load(tmp_path, base, model)
    (finding,) = find_model_problems(config)
    assert finding.text.startswith(text)
    assert finding.is_error
    config.val_evaluator = None
    (finding,) = find_model_problems(config)
    assert not finding.is_error


class Images(list):
    """A dataset that knows only how many images it has."""

    def full_init(self):
        self[:] = range(9)


@pytest.mark.parametrize(
    ('loader', 'launcher', 'is_error'),
    [
        ({}, None, False),
        ({}, 'none', True),
        ({}, 'pytorch', None),
        ({'batch_size': 3}, 'none', None),
        ({'drop_last': True}, 'none', None),
        ({'sampler': {'type': 'InfiniteSampler'}}, 'none', None),
        ({'batch_sampler': {'type': 'AspectRatioBatchSampler'}}, 'none', None),
    ],
    ids=['launcher-not-known', 'one-process', 'more-processes', 'full-batches', 'dropped']
    + ['infinite', 'by-aspect-ratio'],
)
def test_last_batch_of_one_with_batch_norm(tmp_path, loader, launcher, is_error):
    model = {'decode_head': {**NECK, 'norm_cfg': BN}, 'auxiliary_head': {'in_channels': 128}}
    sampler = {'type': 'DefaultSampler', 'shuffle': True}
    loader = {'batch_size': 4, 'sampler': sampler, **loader}
    config = load(tmp_path, UPERNET, model, train_dataloader=loader, launcher=launcher)
    source = DataSource('train', 'train_dataloader.dataset', config.train_dataloader, Images())
    findings = list(find_model_problems(config, sources=[source]))
    assert [each.is_error for each in findings] == ([] if is_error is None else [is_error])
    for each in findings:
        assert each.text.startswith('the last batch of train_dataloader has 1 image, but model.')


def test_last_batch_that_a_run_does_not_reach():
    loader = {'batch_size': 4, 'sampler': {'type': 'DefaultSampler'}}
    config = Config({'train_dataloader': loader, 'train_cfg': {'max_iters': 2}})
    source = DataSource('train', 'train_dataloader.dataset', config.train_dataloader, Images())
    assert last_training_batch(config, [source]) is None
    config.train_cfg.max_iters = 3
    assert last_training_batch(config, [source]) == 1


@pytest.mark.parametrize(
    ('base', 'model'),
    [
        (MASK_RCNN, None),
        (MASK_RCNN, {'neck': {**NECK, 'norm_cfg': BN}}),
        (UPERNET, {'decode_head': {**NECK, 'norm_cfg': {'type': 'GN', 'num_groups': 32}},
                   'auxiliary_head': {'in_channels': 128, 'norm_cfg': BN}}),
    ],
    ids=['frozen', 'large-maps', 'group-norm'],
)  # fmt: skip
def test_batch_of_one_that_trains(tmp_path, base, model):
    config = load(tmp_path, base, model, train_dataloader={'batch_size': 1})
    assert list(find_model_problems(config)) == []


PYTORCH = {'launcher': 'pytorch'}
ONE_HEAD = {'pretrained': None, 'decode_head': {'in_channels': 256},
            'auxiliary_head': {'in_channels': 128}}  # fmt: skip


@pytest.mark.parametrize(
    ('base', 'model', 'text'),
    [
        (RETINANET, {'neck': NECK},
         'model.neck.start_level is 1, so that no gradient reaches norm0 of model.backbone and '
         'DistributedDataParallel stops: write model.backbone.out_indices=(1, 2, 3), '
         'model.neck.in_channels=[64, 128, 256] and model.neck.start_level=0'),
        (PSPNET, ONE_HEAD,
         'the heads have in_index [3, 2], so that no gradient reaches norm0, norm1 of '),
        (RESNET, {'head': {'in_channels': 256}},
         'model.head takes the last output alone, so that no gradient reaches norm0, norm1, '),
    ],
    ids=['retinanet', 'pspnet', 'classifier'],
)  # fmt: skip
def test_outputs_that_no_head_takes(tmp_path, base, model, text):
    (finding,) = find_model_problems(load(tmp_path, base, model, **PYTORCH))
    assert text in finding.text
    assert not finding.is_error
    rest = {**PYTORCH, 'find_unused_parameters': True}
    assert list(find_model_problems(load(tmp_path, base, model, **rest))) == []


@pytest.mark.parametrize(
    ('base', 'model'),
    [
        (FASTER_RCNN, {'neck': NECK}),
        (UPERNET, {'decode_head': NECK, 'auxiliary_head': {'in_channels': 128}}),
        (RESNET, {'backbone': out(3), 'head': {'in_channels': 256}}),
        (RESNET, {'backbone': {'frozen_stages': 4}, 'head': {'in_channels': 256}}),
        (RETINANET, None),
    ],
    ids=['faster-rcnn', 'upernet', 'classifier', 'frozen', 'resnet'],
)
def test_outputs_that_are_all_taken(tmp_path, base, model):
    assert list(find_model_problems(load(tmp_path, base, model, **PYTORCH))) == []


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ConcatDataset', 'MultiImageMixDataset'])
def test_steps_of_the_datasets_inside_a_wrapper(wrapper):
    inner = dict(type='CocoDataset', pipeline=[dict(type='Pad')])
    inside = dict(datasets=[inner]) if wrapper == 'ConcatDataset' else dict(dataset=inner)
    dataset = dict(type=wrapper, pipeline=[dict(type='Mosaic')], **inside)
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    assert [step['type'] for step in find_steps(config)] == ['Mosaic', 'Pad']
