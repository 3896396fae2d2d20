"""``compile`` in a config also compiles the optimizer step, which PyTorch cannot trace.

mmengine's parameter groups are instances of its own dict class, which is an error since PyTorch
2.12. Earlier versions recompile a backbone's step over and over, up to PyTorch's limit.
"""

import functools
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.runner.runner',)


def repair(module: ModuleType) -> None:
    """Excludes everything after the losses from the compiled training step.

    Args:
        module: ``mmengine.runner.runner``.
    """
    maybe_compile = module.Runner._maybe_compile

    @functools.wraps(maybe_compile)
    def compile_model_only(self: Any, target: str) -> None:
        if target == 'train_step' and self.cfg.get('compile'):
            import torch

            from nat_mm.wrappers import list_optim_wrappers

            for wrapper in list_optim_wrappers(self.optim_wrapper):
                wrapper.update_params = torch.compiler.disable(wrapper.update_params)
        maybe_compile(self, target)

    module.Runner._maybe_compile = compile_model_only
