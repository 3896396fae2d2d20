"""Traces the shape of an image through a model on the meta device, without memory."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

BATCH = 2


@dataclass(frozen=True)
class Failure:
    """The failure of a part of the model.

    Attributes:
        error: The exception.
        module: The innermost module that was running.
        inputs: Its input tensors.
    """

    error: Exception
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]


class ShapeTrace:
    """A model on the meta device, and the shapes that it computes from that of an image.

    Args:
        config: Config of the run.
        image_size: Height and width of the image, in pixels.
        channels: Number of channels of the image.

    Attributes:
        model: The model, in training mode.
        image_size: Height and width of the image.
        names: The dotted name of each module, such as ``neck.lateral_convs.0``.
        inputs: The feature maps passed to each module's forward method.
        normalized: For each batch normalization layer that ran in training mode, the number of
            values per channel and image.
    """

    def __init__(self, config: Config, image_size: tuple[int, int], channels: int) -> None:
        self.image_size = image_size
        self.channels = channels
        self.model = build_without_memory(config)
        self.inputs: dict[nn.Module, list[torch.Tensor]] = {}
        self.normalized: dict[nn.Module, int] = {}
        self.names = {module: name for name, module in self.model.named_modules()}
        for module in self.model.modules():
            module.register_forward_pre_hook(self._see)

    def image(self) -> torch.Tensor:
        """Creates images, ``[2, channels, H, W]``."""
        return torch.empty(BATCH, self.channels, *self.image_size, device='meta')

    def run(self, module: nn.Module, *inputs: Any) -> Any:
        """Runs a part of the model.

        Returns:
            Its output, or a `Failure`.
        """
        try:
            with torch.no_grad(), _quiet(), _ShapesAlone():
                return module(*inputs)
        except Exception as error:
            return _describe(error, module)

    def _see(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        first = inputs[0] if inputs else None
        if is_feature_maps(first):
            self.inputs[module] = list(first)
        elif isinstance(module, _BatchNorm) and isinstance(first, torch.Tensor):
            if module.training and first.shape[0] == BATCH:
                self.normalized[module] = first[:, 0].numel() // BATCH


def is_feature_maps(value: Any) -> bool:
    """Whether a value is a non-empty list of feature maps ``[B, C, H, W]``."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(each, torch.Tensor) and each.ndim == 4 for each in value)
    )


def build_without_memory(config: Config) -> nn.Module:
    """Builds the model of a config, in training mode, on PyTorch's meta device."""
    description = copy.deepcopy(config.model)
    # mmpretrain's configs have it next to the model.
    if config.get('data_preprocessor'):
        description.setdefault('data_preprocessor', config.data_preprocessor)
    scope = DefaultScope.overwrite_default_scope(config.default_scope)
    with scope, _WithoutMemory(), _quiet():
        model = MODELS.build(description)
    model.to('meta')
    model.train()
    return model


class _WithoutMemory(TorchFunctionMode):
    """Creates parameters on the meta device.

    Numbers that constructors compute and read, such as stochastic depth rates by ``linspace``, keep
    their values.
    """

    factories = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in self.factories and kwargs.get('device') is None:
            kwargs = {**kwargs, 'device': 'meta'}
        return function(*args, **kwargs)


class _ShapesAlone(TorchFunctionMode):
    """Derives the results of normalization and resizing from shapes alone.

    On the meta device, PyTorch runs each step of these in Python, up to two thirds of the time of a
    trace. Inputs that do not fit are still passed to PyTorch, which refuses them.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (functional.layer_norm, functional.batch_norm, functional.interpolate):
            maps = args[0]
            if maps.is_meta and (shape := _result_shape(function, maps, *args[1:], **kwargs)):
                return maps.new_empty(shape)
        return function(*args, **kwargs)


def _result_shape(
    function: Any, maps: torch.Tensor, argument: Any = None, *_: Any, **kwargs: Any
) -> tuple[int, ...] | None:
    """Returns the shape of the result; None if the arguments do not fit."""
    if function is functional.interpolate:
        size = kwargs.get('size')
        fits = isinstance(size, tuple) and len(size) == maps.ndim - 2 and min(size) > 0
        return (*maps.shape[:2], *size) if fits else None
    if function is functional.layer_norm:
        fits = maps.shape[maps.ndim - len(argument) :] == tuple(argument)
    else:
        # In training, PyTorch refuses a single value per channel.
        fits = argument is not None and argument.shape == maps.shape[1:2]
        fits = fits and maps.numel() > argument.numel()
    return tuple(maps.shape) if fits else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses warnings and logs, which building the real model will repeat."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)


def _describe(error: Exception, module: nn.Module) -> Failure:
    inputs: tuple[torch.Tensor, ...] = ()
    trace = error.__traceback__
    while trace is not None:
        scope = trace.tb_frame.f_locals
        if isinstance(scope.get('self'), nn.Module) and trace.tb_frame.f_code.co_name == 'forward':
            module = scope['self']
            code = trace.tb_frame.f_code
            given = [scope.get(name) for name in code.co_varnames[1 : code.co_argcount]]
            inputs = tuple(each for each in given if isinstance(each, torch.Tensor))
        trace = trace.tb_next
    return Failure(error, module, inputs)
