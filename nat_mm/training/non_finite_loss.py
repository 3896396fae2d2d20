"""Ends a training run whose loss has become NaN or infinite."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from nat_mm.wrappers import list_optim_wrappers, unwrap_model

_FSDP = '_fsdp_wrapped_module.'
"""Inserted by FSDP into the names of parameters, but not into those in checkpoints."""


class NonFiniteError(ArithmeticError):
    """The loss or a weight of a training run is NaN or infinite."""


@HOOKS.register_module()
class StopOnNonFiniteLoss(Hook):
    """Ends training before weights corrupted by a NaN or infinite loss reach a checkpoint.

    Losses are checked after each iteration, before its checkpoint is written. By then, mmengine has
    already copied them from the GPU for its log, so the check causes no additional wait. Since
    gradients can be NaN even if the loss is not, all weights are checked before a checkpoint is
    written. If mixed precision scales the loss, the optimizer skips iterations whose gradients are
    NaN or infinite, so a few non-finite losses are tolerated.

    Args:
        patience: Number of consecutive iterations that may have a NaN or infinite loss if the loss
            is scaled; without scaling, the first one ends the training run.

    Raises:
        ValueError: If ``patience`` is negative.
    """

    priority = 'ABOVE_NORMAL'  # after mmengine has logged the losses, before it saves

    def __init__(self, *, patience: int = 10):
        if patience < 0:
            raise ValueError(f'patience must be at least 0, got {patience}')
        self.patience = patience
        self._in_a_row = 0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Ends training if a loss of the iteration is not finite.

        Raises:
            NonFiniteError: If a loss is not finite.
        """
        losses = {name: value for name, value in (outputs or {}).items() if 'loss' in name}
        if all(math.isfinite(_logged(runner, name, losses[name])) for name in losses):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if _scales_losses(runner.optim_wrapper) and self._in_a_row <= self.patience:
            return
        values = {name: _logged(runner, name, losses[name]) for name in losses}
        parts = [
            f'{name} is {value}'
            for name, value in values.items()
            if not math.isfinite(value) and (name != 'loss' or len(values) == 1)
        ]
        named = ', '.join(parts) or f'loss is {values["loss"]}'
        again = f', as in the {self._in_a_row - 1} before it' if self._in_a_row > 1 else ''
        raise NonFiniteError(
            f'{named} in iteration {runner.iter + 1}{again}; no checkpoint was written since. '
            'Lower the learning rate, clip gradients with optim_wrapper.clip_grad, or look at the '
            'data of that iteration'
        )

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Prevents a checkpoint from being written if a weight is not finite.

        Raises:
            NonFiniteError: If a weight is not finite.
        """
        # Buffers may be infinite on purpose, such as masks.
        buffers = {
            name.replace(_FSDP, '') for name, _ in unwrap_model(runner.model).named_buffers()
        }
        for name, weight in checkpoint['state_dict'].items():
            # Sharded weights, as FSDP may save them, have their own type.
            if name in buffers or type(weight) not in (torch.Tensor, nn.Parameter):
                continue
            if not torch.isfinite(weight).all():
                raise NonFiniteError(
                    f'weight {name} is NaN or infinite after iteration {checkpoint["meta"]["iter"]}'
                    ', so no checkpoint of it was written. Lower the learning rate or clip '
                    'gradients with optim_wrapper.clip_grad'
                )


def _scales_losses(optim_wrapper: Any) -> bool:
    scalers = (getattr(each, 'loss_scaler', None) for each in list_optim_wrappers(optim_wrapper))
    return any(each is not None and each.is_enabled() for each in scalers)


def _logged(runner: Any, name: str, value: Any) -> float:
    """Returns the value of a loss, from mmengine's log if possible, which costs nothing."""
    history = runner.message_hub.log_scalars.get(f'train/{name}')
    return float(value if history is None else history.current())
