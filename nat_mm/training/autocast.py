"""Mixed precision on GPUs and CPUs."""

from contextlib import AbstractContextManager
from types import ModuleType

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from nat_mm.training.bf16_instructions import avoid_unusable_amx


def check_instructions_before_loops(loops: ModuleType) -> None:
    """Calls :func:`avoid_unusable_amx` before validation and test loops enter autocast on a CPU.

    Args:
        loops: ``mmengine.runner.loops``.
    """
    autocast = loops.autocast

    def checked_autocast(*, enabled: bool) -> AbstractContextManager[None]:
        if enabled and get_device() == 'cpu':
            avoid_unusable_amx()
        return autocast(enabled=enabled)

    loops.autocast = checked_autocast


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(AmpOptimWrapper):
    """mmengine's AmpOptimWrapper, but also for CPUs, in bf16 without loss scaling.

    On a GPU, nothing changes: fp16 with loss scaling unless ``dtype`` says otherwise.

    Args:
        optimizer: Optimizer whose parameters are updated.
        loss_scale: ``'dynamic'``, a fixed scale, or arguments for GradScaler; not used on a CPU.
        dtype: Precision inside autocast: ``'bfloat16'``, ``'float16'`` or a torch.dtype. None for
            the device's default, bf16 on a CPU and fp16 on a GPU.
        accumulative_counts: Number of iterations whose gradients are summed before a step.
        clip_grad: Arguments for mmengine's gradient clipping, or None for no clipping.

    Raises:
        ValueError: If ``dtype`` is not bf16 on a CPU.
    """

    def __init__(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        loss_scale: str | float | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        common = {
            'optimizer': optimizer,
            'accumulative_counts': accumulative_counts,
            'clip_grad': clip_grad,
        }
        if get_device() != 'cpu':
            super().__init__(loss_scale=loss_scale, dtype=dtype, **common)
            return
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(f"dtype must be 'bfloat16' for mixed precision on a CPU, got {dtype}")
        avoid_unusable_amx()
        # AmpOptimWrapper.__init__ requires a GPU; its methods do not.
        OptimWrapper.__init__(self, **common)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self.cast_dtype = torch.bfloat16

    def state_dict(self) -> dict:
        """Returns the optimizer's state, and the loss scaler's if there is one."""
        state = super().state_dict()
        if not self.loss_scaler.is_enabled():
            del state['loss_scaler']  # a scaler on a GPU would reject the empty state
        return state
