"""Ends a training run whose loss has become NaN or infinite."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import nn

_FSDP = '_fsdp_wrapped_module.'
"""What FSDP puts into names, but not into those in checkpoints."""


class NonFiniteError(ArithmeticError):
    """The loss or a weight of a training run is NaN or infinite."""


@HOOKS.register_module()
class StopOnNonFiniteLoss(Hook):
    """Ends training before weights that a NaN or infinite loss has spoilt reach a checkpoint.

    The losses are looked at after each iteration and before a checkpoint of it is written; mmengine
    has copied them from the GPU by then, for its log, so that nothing waits for it once more. As
    gradients can be NaN where the loss is not, every weight is looked at before a checkpoint is
    written. Where mixed precision scales the loss, the optimizer leaves out the iterations whose
    gradients are NaN or infinite, and a loss may be so a few times.

    Args:
        patience: Iterations in a row that may have a NaN or infinite loss where it is scaled;
            without scaling, the first one ends the training run.

    Raises:
        ValueError: ``patience`` is negative.
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
            NonFiniteError: It is not.
        """
        losses = {name: value for name, value in (outputs or {}).items() if 'loss' in name}
        if all(math.isfinite(_logged(runner, name, losses[name])) for name in losses):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is not None and scaler.is_enabled() and self._in_a_row <= self.patience:
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
        """Refuses to let a checkpoint be written if a weight is not finite.

        Raises:
            NonFiniteError: It is not.
        """
        # Buffers may be infinite on purpose, as masks are.
        buffers = {name.replace(_FSDP, '') for name, _ in _unwrap(runner.model).named_buffers()}
        for name, weight in checkpoint['state_dict'].items():
            # Parts of weights, as FSDP may save them, have a type of their own.
            if name in buffers or type(weight) not in (torch.Tensor, nn.Parameter):
                continue
            if not torch.isfinite(weight).all():
                raise NonFiniteError(
                    f'weight {name} is NaN or infinite after iteration {checkpoint["meta"]["iter"]}'
                    ', so no checkpoint of it was written. Lower the learning rate or clip '
                    'gradients with optim_wrapper.clip_grad'
                )


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _logged(runner: Any, name: str, value: Any) -> float:
    """The value of a loss, from mmengine's log where it has one, which costs nothing."""
    history = runner.message_hub.log_scalars.get(f'train/{name}')
    return float(value if history is None else history.current())
