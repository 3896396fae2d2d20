"""Finds the weight decay of each parameter."""

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn


def find_weight_decay(model: nn.Module, config: Config) -> dict[str, float]:
    """Returns the weight decay of every parameter by name."""
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decay = {
        names[parameter]: group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    assert decay.keys() == set(names.values())
    return decay


def find_norms(backbone: nn.Module) -> set[str]:
    """Returns the names of the backbone's norm parameters in the model around it."""
    return {
        f'backbone.{name}.{weight}'
        for name, module in backbone.named_modules()
        if isinstance(module, nn.LayerNorm)
        for weight in ('weight', 'bias')
    }
