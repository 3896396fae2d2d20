"""mmcv's operators for installations without mmcv's compiled extension (mmcv-lite).

:func:`repair` adds to the module served as ``mmcv._ext`` the operators that mmdet, mmseg and
mmpretrain use, implemented with torchvision and PyTorch; docs/compatibility.md lists them. The
functions take the same arguments by the same names as their compiled namesakes (mmcv 2.1.0), so
that ``mmcv.ops`` works unchanged; those with an ``output`` or ``grad_*`` argument write into it.
They compute in fp32 for bf16 and fp16 tensors. All other operators can be imported but raise an
error when called.
"""

from importlib.util import find_spec
from types import ModuleType

from nat_mm.compat.mmcv_ops import (
    box_overlaps,
    carafe,
    deform_conv,
    deform_roi_pool,
    deformable_attention,
    focal_loss,
    masked_conv,
    nms,
    psamask,
    roi_align,
    roi_pool,
    soft_nms,
    versions,
)

from .unavailable import unavailable_op

BROKEN_IN = {'mmcv': '>=2'}
UPSTREAM = 'https://github.com/open-mmlab/mmdetection/issues/11475'
SERVED_OPS = (
    box_overlaps.bbox_overlaps,
    box_overlaps.box_iou_rotated,
    carafe.carafe_backward,
    carafe.carafe_forward,
    carafe.carafe_naive_backward,
    carafe.carafe_naive_forward,
    deform_conv.deform_conv_backward_input,
    deform_conv.deform_conv_backward_parameters,
    deform_conv.deform_conv_forward,
    deform_conv.modulated_deform_conv_backward,
    deform_conv.modulated_deform_conv_forward,
    deform_roi_pool.deform_roi_pool_backward,
    deform_roi_pool.deform_roi_pool_forward,
    deformable_attention.ms_deform_attn_backward,
    deformable_attention.ms_deform_attn_forward,
    focal_loss.sigmoid_focal_loss_backward,
    focal_loss.sigmoid_focal_loss_forward,
    focal_loss.softmax_focal_loss_backward,
    focal_loss.softmax_focal_loss_forward,
    masked_conv.masked_col2im_forward,
    masked_conv.masked_im2col_forward,
    nms.nms,
    nms.nms_match,
    nms.nms_rotated,
    psamask.psamask_backward,
    psamask.psamask_forward,
    roi_align.roi_align_backward,
    roi_align.roi_align_forward,
    roi_pool.roi_pool_backward,
    roi_pool.roi_pool_forward,
    soft_nms.softnms,
    versions.get_compiler_version,
    versions.get_compiling_cuda_version,
)


def replaced() -> str | None:
    """Return why this is not needed: a compiled mmcv takes precedence."""
    spec = find_spec('mmcv._ext')
    return None if spec is None or spec.origin == __name__ else 'a compiled mmcv is installed'


def repair(module: ModuleType) -> None:
    """Give a module the attributes that ``mmcv.ops`` looks for in ``mmcv._ext``.

    Args:
        module: The module that :mod:`nat_mm_startup` serves as ``mmcv._ext``.
    """
    for op in SERVED_OPS:
        setattr(module, op.__name__, op)
    module.__getattr__ = unavailable_op
