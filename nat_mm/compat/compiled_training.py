"""``compile`` in a config compiles the optimizer's step, too, which PyTorch cannot follow.

mmengine's parameter groups are dicts of its own kind, an error since PyTorch 2.12. Before, the step
of a backbone is compiled again and again, up to PyTorch's limit.
"""

import functools
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.runner.runner',)


def repair(module: ModuleType) -> None:
    """Lets the compiled step leave out what follows the losses.

    Args:
        module: ``mmengine.runner.runner``.
    """
    maybe_compile = module.Runner._maybe_compile

    @functools.wraps(maybe_compile)
    def compile_model_only(self: Any, target: str) -> None:
        if target == 'train_step' and self.cfg.get('compile'):
            import torch

            wrapper = self.optim_wrapper
            wrapper.update_params = torch.compiler.disable(wrapper.update_params)
        maybe_compile(self, target)

    module.Runner._maybe_compile = compile_model_only
