"""Operators of mmcv for installations without mmcv's compiled extension (mmcv-lite).

:func:`repair` writes into the module served as ``mmcv._ext`` what Mask R-CNN, Cascade Mask R-CNN,
RetinaNet, UPerNet and Mask2Former run, on top of torchvision and PyTorch. The functions take the
arguments of their compiled namesakes (mmcv 2.1.0), so that ``mmcv.ops`` works unchanged; those with
an ``output`` or ``grad_*`` argument write into it. They compute in fp32 where a bf16 or fp16 tensor
comes in. Every other operator can be imported but raises an error when it is called.
"""

from importlib.util import find_spec
from types import ModuleType

from .deformable_attention import ms_deform_attn_backward, ms_deform_attn_forward
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .nms import nms
from .roi_align import roi_align_backward, roi_align_forward
from .soft_nms import softnms
from .unavailable import unavailable_op
from .versions import get_compiler_version, get_compiling_cuda_version

BROKEN_IN = {'mmcv': '>=2'}
UPSTREAM = 'https://github.com/open-mmlab/mmdetection/issues/11475'
SERVED_OPS = (
    get_compiler_version,
    get_compiling_cuda_version,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    nms,
    roi_align_backward,
    roi_align_forward,
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softnms,
)


def replaced() -> str | None:
    """Why this is not needed: a compiled mmcv goes first."""
    spec = find_spec('mmcv._ext')
    return None if spec is None or spec.origin == __name__ else 'a compiled mmcv is installed'


def repair(module: ModuleType) -> None:
    """Gives a module the attributes that ``mmcv.ops`` looks for in ``mmcv._ext``.

    Args:
        module: What :mod:`nat_mm_startup` serves as ``mmcv._ext``.
    """
    for op in SERVED_OPS:
        setattr(module, op.__name__, op)
    module.__getattr__ = unavailable_op
