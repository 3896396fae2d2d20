"""Converts a PyTorch module to an ONNX model."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nat_mm.errors import describe_error
from nat_mm.export.operators import operator_translations
from nat_mm.layers import NeighborhoodAttention2D

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18

ATTENTION = 'portable'
"""The attention backend to export, one whose operator `nat_mm.ops.onnx` translates."""


class AdaptiveAveragePooling(nn.Module):
    """Adaptive average pooling with matrix products, for maps of any size.

    ONNX lacks this operator, and PyTorch replaces it with average pooling for a single size.

    Args:
        size: Height and width of the result; None keeps the input's.
    """

    def __init__(self, size: int | None | Sequence[int | None]) -> None:
        super().__init__()
        self.size = (size, size) if size is None or isinstance(size, int) else tuple(size)

    def forward(self, features: Tensor) -> Tensor:
        """Averages the cells of each bin: [N, C, H, W] -> [N, C, *size]."""
        for axis, bins in zip((2, 3), self.size, strict=True):
            if bins is not None:
                shares = _shares(features.shape[axis], bins, features)
                features = (features.transpose(axis, 3) @ shares.T).transpose(axis, 3)
        return features


def _shares(length: int, bins: int, like: Tensor) -> Tensor:
    """Returns the weight of each cell along an axis in each bin, [bins, length]."""
    number = torch.arange(bins, device=like.device)[:, None]
    cell = torch.arange(length, device=like.device)
    first = number * length // bins
    end = ((number + 1) * length + bins - 1) // bins
    return ((cell >= first) & (cell < end)).to(like.dtype) / (end - first)


def for_export(module: nn.Module) -> nn.Module:
    """Copies a module, replacing what ONNX does not support.

    Args:
        module: The module, on the CPU.

    Returns:
        The copy, in eval mode and frozen, with the attention backend `ATTENTION`.
    """
    module = copy.deepcopy(module).requires_grad_(False)
    module.eval()
    for parent in list(module.modules()):
        if isinstance(parent, NeighborhoodAttention2D):
            parent.backend = ATTENTION
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, AdaptiveAveragePooling(child.output_size))
    return module


def to_onnx(
    module: nn.Module,
    arguments: Sequence[Tensor],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: dict[int, str],
) -> 'ModelProto':
    """Exports a module.

    Args:
        module: A result of `for_export`, or a module composed of such results.
        arguments: Example inputs for tracing, an image first. No dynamic dimension may be 1, which
            would become fixed.
        input_names: Names of the inputs.
        output_names: Names of the outputs.
        dynamic_axes: Names of the image's dynamic dimensions.

    Returns:
        The ONNX model.

    Raises:
        ImportError: If onnx or onnxscript is not installed.
        ArithmeticError: If PyTorch cannot export the module.
    """
    from nat_mm.ops import onnx as attention

    shapes: tuple[Any, ...] = (dynamic_axes, *({} for _ in arguments[1:]))
    try:
        with without_messages('torch.onnx'), _without_slow_rule():
            program = torch.onnx.export(
                module,
                tuple(arguments),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=shapes,
                custom_translation_table={**attention.translations(), **operator_translations()},
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error.__cause__ or error
        reason = describe_error(cause).splitlines()[0]
        raise ArithmeticError(f'PyTorch cannot export {type(module).__name__}: {reason}') from error
    if program is None:
        raise ArithmeticError('PyTorch exported no program')
    return program.model_proto


@contextmanager
def _without_slow_rule() -> Iterator[None]:
    """Leaves out the one rule of the optimizer that reads the whole graph for each of its nodes.

    It would take half of a backbone's export. It replaces two slices, the halves of a tensor, with
    a split, which is no faster.
    """
    from onnxscript import rewriter

    rules = getattr(rewriter, '_DEFAULT_REWRITE_RULES', ())  # a later onnxscript may lack them
    rewriter._DEFAULT_REWRITE_RULES = tuple(rule for rule in rules if rule.name != 'SlicesSplit')
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules


@contextmanager
def without_messages(name: str | None) -> Iterator[None]:
    """Silences an exporter's messages, which are meant for its developers.

    Args:
        name: Name of the logger; None for the root logger.
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
