"""Small detectors and segmentors whose scores differ between objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmdet.models  # noqa: F401  registers what the configs name
import mmseg.models  # noqa: F401
import onnx
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from nat_mm.export.preprocessing import Preprocessing, image_front, with_front
from nat_mm.inference.load_model import build_module
from nat_mm.inference.model import Model

CHANNELS = (8, 12, 16)
CLASSES = 3


@MODELS.register_module(force=True)
class Pyramid(nn.Module):
    """A backbone that is quicker to trace than nat_mm's."""

    def __init__(self, levels: int = len(CHANNELS)) -> None:
        super().__init__()
        widths = (3, *CHANNELS)
        self.layers = nn.ModuleList(
            nn.Conv2d(*widths[i : i + 2], 3, stride=2 if i else 4, padding=1) for i in range(levels)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for layer in self.layers:
            image = layer(image).tanh()
            maps.append(image)
        return tuple(maps)


CODER = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
LOSSES = dict(
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False),
    loss_bbox=dict(type='L1Loss'),
)
NMS = dict(type='nms', iou_threshold=0.5)
EXTRACTOR = dict(type='SingleRoIExtractor', out_channels=8, featmap_strides=[4, 8], finest_scale=20)


def box_head(**options: Any) -> dict[str, Any]:
    return dict(
        type='Shared2FCBBoxHead',
        in_channels=8,
        fc_out_channels=16,
        roi_feat_size=3,
        num_classes=CLASSES,
        bbox_coder=CODER,
        **LOSSES,
        **options,
    )


def two_stage(
    roi_head: dict[str, Any], *, masks: bool, levels: int = len(CHANNELS), **options: Any
) -> dict[str, Any]:
    masked = dict(
        mask_roi_extractor=dict(
            EXTRACTOR, roi_layer=dict(type='RoIAlign', output_size=4, sampling_ratio=0)
        ),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=1,
            in_channels=8,
            conv_out_channels=8,
            num_classes=CLASSES,
            norm_cfg=dict(type='BN'),
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
        ),
    )
    return dict(
        backbone=dict(type='mmengine.Pyramid', levels=levels),
        neck=dict(type='FPN', in_channels=list(CHANNELS[:levels]), out_channels=8, num_outs=levels),
        rpn_head=dict(
            type='RPNHead',
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[6], ratios=[0.5, 1.0], strides=[4, 8, 16][:levels]
            ),
            bbox_coder=dict(CODER, target_stds=[1.0] * 4),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        roi_head=dict(
            bbox_roi_extractor=dict(
                EXTRACTOR, roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=2)
            ),
            **roi_head,
            **(masked if masks else {}),
        ),
        train_cfg=None,
        test_cfg=dict(
            rpn=dict(nms_pre=60, max_per_img=40, min_bbox_size=0, nms=dict(NMS, iou_threshold=0.7)),
            rcnn=dict(score_thr=0.05, nms=NMS, max_per_img=20, mask_thr_binary=0.5),
        ),
        **options,
    )


STANDARD = dict(type='StandardRoIHead', bbox_head=box_head(reg_class_agnostic=False))
CASCADE = dict(
    type='CascadeRoIHead',
    num_stages=3,
    stage_loss_weights=[1, 0.5, 0.25],
    bbox_head=[box_head(reg_class_agnostic=agnostic) for agnostic in (True, False, True)],
)
DETECTORS: dict[str, dict[str, Any]] = {
    'Faster R-CNN': two_stage(STANDARD, masks=False, type='FasterRCNN'),
    'Mask R-CNN': two_stage(STANDARD, masks=True, levels=2, type='MaskRCNN'),
    'Cascade Mask R-CNN': two_stage(CASCADE, masks=True, type='CascadeRCNN'),
    'RetinaNet': dict(
        type='RetinaNet',
        backbone=dict(type='mmengine.Pyramid'),
        neck=dict(type='FPN', in_channels=list(CHANNELS), out_channels=8, num_outs=3),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=CLASSES,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=2,
                ratios=[0.5, 1.0],
                strides=[4, 8, 16],
            ),
            bbox_coder=dict(CODER, target_stds=[1.0] * 4),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        test_cfg=dict(nms_pre=60, min_bbox_size=0, score_thr=0.05, nms=NMS, max_per_img=20),
    ),
}

PREPROCESSOR = dict(
    mean=[120.0, 110.0, 100.0],
    std=[60.0, 61.0, 62.0],
    bgr_to_rgb=True,
)


def build_detector(name: str, resize: Sequence[dict[str, Any]] = (), **overrides: Any) -> Model:
    """Builds a detector of `DETECTORS`."""
    model = dict(
        DETECTORS[name],
        data_preprocessor=dict(
            type='DetDataPreprocessor', pad_size_divisor=32, pad_mask=True, **PREPROCESSOR
        ),
    )
    packed = dict(
        type='PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor', 'img_path')
    )
    return _build(model, 'mmdet', [*resize, packed], overrides)


def build_segmentor(**overrides: Any) -> Model:
    """Builds a small UPerNet."""
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', pad_val=0, **PREPROCESSOR),
        backbone=dict(type='mmengine.Pyramid', levels=2),
        decode_head=dict(
            type='UPerHead',
            in_channels=list(CHANNELS[:2]),
            in_index=[0, 1],
            pool_scales=(1, 2),
            channels=8,
            num_classes=CLASSES,
            norm_cfg=dict(type='BN'),
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='whole'),
    )
    return _build(model, 'mmseg', [dict(type='PackSegInputs')], overrides)


def _build(
    model: dict[str, Any], scope: str, pipeline: list[dict[str, Any]], overrides: dict[str, Any]
) -> Model:
    loading = dict(type='LoadImageFromFile')
    config = Config(
        dict(
            default_scope=scope,
            model=model,
            test_dataloader=dict(dataset=dict(pipeline=[loading, *pipeline])),
        )
    )
    config.merge_from_dict(overrides)
    with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_module(config)
        for parameter in module.parameters():
            if parameter.dim() > 1:
                # These weights are large enough for scores that are far apart.
                nn.init.kaiming_normal_(parameter)
    return Model(module.eval(), config, {'classes': ('a', 'b', 'c'), 'palette': [(0, 0, 0)] * 3})


def write_small_segmentor(path: Path) -> None:
    """Writes an exported segmentor whose label is the image's largest channel."""
    network = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        network (float[1, 3, h, w] network_image, int64[2] content, int64[2] size)
        => (int64[1, height, width] labels, float[1, height, width] scores) {
            labels = ArgMax <axis = 1, keepdims = 0> (network_image)
            axis = Constant <value = int64[1] {1}> ()
            scores = ReduceMax <keepdims = 0> (network_image, axis)
        }""")
    settings = Preprocessing(None, False, [0, 0, 0], [1, 1, 1], True, 1, 0)
    onnx.save(with_front(network, image_front(settings)), path)
