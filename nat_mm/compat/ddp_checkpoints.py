"""mmengine's DDPStrategy, unlike Runner, saves weights with the names of the wrapped model."""

import functools
from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine._strategy.distributed',)


def repair(module: ModuleType) -> None:
    """Makes DDPStrategy save weights without the prefix ``module.``.

    Args:
        module: ``mmengine._strategy.distributed``.
    """

    @functools.wraps(module.DDPStrategy.model_state_dict)
    def model_state_dict(self) -> dict:
        from mmengine.runner import weights_to_cpu

        from nat_mm.wrappers import unwrap_model

        return weights_to_cpu(unwrap_model(self.model).state_dict())

    module.DDPStrategy.model_state_dict = model_state_dict
