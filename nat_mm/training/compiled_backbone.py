"""Trains with a backbone compiled by torch.compile."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from nat_mm.errors import UserError
from nat_mm.wrappers import list_optim_wrappers, unwrap_model

MODES = ('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs')
"""What torch.compile accepts as its mode."""

RECORDING_MODES = ('reduce-overhead', 'max-autotune')
"""The modes that record CUDA graphs."""


@HOOKS.register_module()
class CompileBackbone(Hook):
    """Compiles the backbone for training; validation and everything else stays eager.

    The images of a validation have many sizes, each of which PyTorch might compile or record
    separately. Weights keep their names, so checkpoints are the same with and without this hook.
    On the CPU, PyTorch's default compiler saves no time and needs a C++ compiler, so nothing is
    compiled there.

    Args:
        mode: Mode of :func:`torch.compile`. ``'reduce-overhead'`` and ``'max-autotune'`` record
            CUDA graphs, one for each image size.
        dynamic: Whether to compile once for all image sizes. By default, PyTorch does so when a
            second size comes.
        backend: Backend of :func:`torch.compile`.

    Raises:
        ValueError: If ``mode`` or ``backend`` is unknown.
        TypeError: If ``dynamic`` is neither a bool nor None.
    """

    def __init__(
        self, *, mode: str = 'default', dynamic: bool | None = None, backend: str = 'inductor'
    ):
        if mode not in MODES:
            raise ValueError(f'mode must be one of {", ".join(MODES)}, got {mode!r}')
        if dynamic is not None and not isinstance(dynamic, bool):
            raise TypeError(f'dynamic must be True, False or None, got {dynamic!r}')
        if backend not in torch.compiler.list_backends(exclude_tags=()):
            known = ', '.join(torch.compiler.list_backends())
            raise ValueError(
                f'backend must be one of {known}, or one for debugging, got {backend!r}'
            )
        self.mode = mode
        self.dynamic = dynamic
        self.backend = backend
        self._backbone: nn.Module | None = None

    def before_train(self, runner: Any) -> None:
        """Compiles the backbone.

        Raises:
            UserError: If the model has no backbone, or if gradients are accumulated over several
                iterations in a mode that records CUDA graphs, which overwrites them.
        """
        model = unwrap_model(runner.model)
        backbone = getattr(model, 'backbone', None)
        if not isinstance(backbone, nn.Module):
            raise UserError(
                f'CompileBackbone needs a model with a backbone, which {type(model).__name__} '
                'lacks: remove the hook from custom_hooks'
            )
        wrappers = list_optim_wrappers(runner.optim_wrapper)
        accumulates = any(each._accumulative_counts > 1 for each in wrappers)
        if self.mode in RECORDING_MODES and accumulates:
            raise UserError(
                f"CompileBackbone cannot accumulate gradients with mode='{self.mode}', whose CUDA "
                "graphs overwrite them: set mode='default', or "
                'optim_wrapper.accumulative_counts=1'
            )
        if self.backend == 'inductor' and next(backbone.parameters()).device.type == 'cpu':
            runner.logger.info(
                'CompileBackbone: the backbone is not compiled, as this saves no time on the CPU'
            )
            return
        eager = backbone.forward
        compiled = torch.compile(eager, mode=self.mode, dynamic=self.dynamic, backend=self.backend)

        def forward(*args: Any, **kwargs: Any) -> Any:
            return (compiled if backbone.training else eager)(*args, **kwargs)

        backbone.forward = forward
        self._backbone = backbone
        runner.logger.info(
            f'CompileBackbone: {type(backbone).__name__} is compiled in the first iteration, which '
            'takes minutes for a large one'
        )

    def after_train(self, runner: Any) -> None:
        """Makes the backbone eager again."""
        if self._backbone is not None:
            del self._backbone.forward
            self._backbone = None
