"""Keeps the coordinates of boxes exact in bf16.

mmdet decodes boxes and pools regions in the dtype of the features. bf16 has 8 bits for a
coordinate, so a box near x = 1000 would shift by up to 2 pixels, and metrics cannot read bf16 at
all. The methods listed here receive their bf16 arguments in fp32 instead.
"""

import functools
from collections.abc import Callable
from types import ModuleType

import torch

from nat_mm.compat import NOT_REPORTED

IN_FP32 = {
    'mmdet.models.dense_heads.base_dense_head': ('BaseDenseHead', 'predict_by_feat'),
    'mmdet.models.roi_heads.bbox_heads.bbox_head': ('BBoxHead', 'predict_by_feat'),
    'mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor': (
        'SingleRoIExtractor',
        'forward',
    ),
    'mmdet.models.seg_heads.panoptic_fusion_heads.maskformer_fusion_head': (
        'MaskFormerFusionHead',
        'predict',
    ),
}

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = NOT_REPORTED
MODULES = tuple(IN_FP32)


def repair(module: ModuleType) -> None:
    """Makes the method that :data:`IN_FP32` names for ``module`` compute in fp32 instead of bf16.

    Args:
        module: One of the modules in :data:`IN_FP32`.
    """
    class_name, method_name = IN_FP32[module.__name__]
    owner = getattr(module, class_name)
    setattr(owner, method_name, _with_fp32_arguments(getattr(owner, method_name)))


def _with_fp32_arguments(method: Callable) -> Callable:
    @functools.wraps(method)
    def call(self, *args, **kwargs):
        kwargs = {name: _to_fp32(value) for name, value in kwargs.items()}
        return method(self, *map(_to_fp32, args), **kwargs)

    return call


def _to_fp32(value: object) -> object:
    if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
        return value.float()
    if type(value) in (list, tuple):
        return type(value)(map(_to_fp32, value))
    return value
