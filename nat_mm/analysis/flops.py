"""Counts the parameters and the multiply-adds of a model from the shapes of its tensors alone."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from nat_mm.analysis.without_values import WithoutValues
from nat_mm.backbones.base import image_channels
from nat_mm.layers import NeighborhoodAttention2D, StandAloneAttention2D
from nat_mm.ops import flop_formulas

aten = torch.ops.aten

Run = Callable[[nn.Module, torch.Tensor], Any]


@dataclass(frozen=True)
class ModelCosts:
    """The costs of a model by the dotted names of its modules; ``''`` is the whole model.

    Attributes:
        parameters: Number of parameters of each module.
        multiply_adds: Multiply-adds of each module.
        neighborhood_attention: Multiply-adds of neighborhood attention in the whole model,
            excluding its projections.
    """

    parameters: dict[str, int]
    multiply_adds: dict[str, int]
    neighborhood_attention: int


def count_costs(
    model: nn.Module, shape: tuple[int, int], run: Run, *, compute: bool = False
) -> ModelCosts:
    """Counts the parameters of a model and its multiply-adds for one image.

    A multiply-add counts as one. Convolutions, matrix products and neighborhood attention are
    counted and, at fvcore's and mmengine's rates per element, operations that make up less than one
    percent of a typical model: normalization, bilinear interpolation and pooling.

    Args:
        model: Model on the CPU, on 'meta' or built in `WithoutValues`. It is frozen, and its
            neighborhood attention is set to the backend 'portable', which does the same work as
            every other backend.
        shape: Height and width of the image.
        run: Runs the model on an image [1, C, H, W]; C is the backbone's ``in_channels`` if it is
            one of nat_mm, and 3 otherwise.
        compute: Whether to compute values. If not, tensors have none (see `WithoutValues`), and the
            operations that the model runs must not depend on them.
    """
    model.requires_grad_(False).eval()
    for module in model.modules():
        if isinstance(module, NeighborhoodAttention2D):
            module.backend = 'portable'
    image = torch.zeros(1, image_channels(model), *shape, device=None if compute else 'meta')
    weights = {
        f'model.{name}': each if compute else each.to('meta')
        for name, each in model.named_parameters()
    }
    formulas = {**flop_formulas(), **_ELEMENTWISE_FORMULAS}
    with (
        torch.no_grad(),
        _without_margins(model),
        _plain_attention(),
        nullcontext() if compute else WithoutValues(),
        FlopCounterMode(display=False, custom_mapping=formulas) as counter,
        _owners(model, counter) as flops,
    ):
        functional_call(_Running(model, run), weights, image)
    parameters = (
        (name.rpartition('.')[0], tensor.numel()) for name, tensor in model.named_parameters()
    )
    # PyTorch's counter counts a multiply-add as two.
    multiply_adds = ((name, count // 2) for name, count in flops.items())
    by_operator = counter.get_flop_counts().get('Global', {})
    return ModelCosts(
        parameters=_sum_by_module(model, parameters),
        multiply_adds=_sum_by_module(model, multiply_adds),
        neighborhood_attention=sum(
            by_operator.get(operator, 0) // 2 for operator in flop_formulas()
        ),
    )


class _Running(nn.Module):
    """Wraps the run of a model in a module that can be called with other weights."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        super().__init__()
        self.model = model
        self.run = run

    def forward(self, image: torch.Tensor) -> Any:
        return self.run(self.model, image)


@contextmanager
def _owners(model: nn.Module, counter: FlopCounterMode) -> Iterator[dict[str, int]]:
    """Counts FLOPs by the name of the innermost module that is running."""
    names = {module: name for name, module in model.named_modules()}
    flops = Counter()
    running = ['']

    def settle() -> None:
        flops[running[-1]] += counter.get_total_flops() - flops.total()

    def enter(module: nn.Module, inputs: Any) -> None:
        settle()
        running.append(names.get(module, running[-1]))

    def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
        settle()
        running.pop()

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
    try:
        yield flops
        settle()
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_margins(model: nn.Module) -> Iterator[None]:
    """Makes stand-alone attention cost only what its windows cost.

    The queries in the zero margin are an artifact of how the operator is used, not of the pattern.
    """
    modules = [module for module in model.modules() if isinstance(module, StandAloneAttention2D)]
    for module in modules:
        for name in ('_pad', '_attend'):
            setattr(module, name, MethodType(getattr(NeighborhoodAttention2D, name), module))
    try:
        yield
    finally:
        for module in modules:
            del module._pad, module._attend


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Disables the fused operators of global attention, which have no FLOP formulas."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _per_input_element(multiply_adds: int) -> Callable[..., int]:
    return lambda shape, *rest, out_shape, **options: 2 * multiply_adds * math.prod(shape)


def _per_output_element(multiply_adds: int) -> Callable[..., int]:
    return lambda *shapes, out_shape, **options: 2 * multiply_adds * math.prod(out_shape)


_ELEMENTWISE_FORMULAS = {
    aten.native_layer_norm: _per_input_element(5),
    aten.native_group_norm: _per_input_element(5),
    aten._native_batch_norm_legit: _per_input_element(5),  # uses batch statistics
    aten._native_batch_norm_legit_no_training: _per_input_element(2),
    aten._adaptive_avg_pool2d: _per_input_element(1),
    aten.upsample_bilinear2d: _per_output_element(4),
    aten.grid_sampler_2d: _per_output_element(4),
}


def _sum_by_module(model: nn.Module, items: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Adds each value to its module and to all modules that contain it."""
    sums = dict.fromkeys((name for name, _ in model.named_modules()), 0)
    for name, value in items:
        sums[name] += value
        while name:
            name = name.rpartition('.')[0]
            sums[name] += value
    return sums
