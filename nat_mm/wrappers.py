"""What mmengine wraps around models and optimizers."""

from typing import Any, cast

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """Returns the model inside wrappers for distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast(nn.Module, model.module)
    return model


def list_optim_wrappers(optim_wrapper: Any) -> list[OptimWrapper]:
    """Returns the wrapper of each optimizer, of which a GAN has several; none if not built yet."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return list(optim_wrapper.values())
    return [optim_wrapper] if isinstance(optim_wrapper, OptimWrapper) else []
