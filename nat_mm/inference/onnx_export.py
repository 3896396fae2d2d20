"""Writes a backbone as an ONNX model for images of any size, checked in onnxruntime."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.files import whole_file
from nat_mm.layers import NeighborhoodAttention2D

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET = 18

CHECKED_SHAPES = ((1, 64, 96), (2, 37, 130), (1, 32, 47))
"""Batch, height and width of the images of the check: other than the export's, odd, and small."""

TOLERANCE = 1e-4
"""Of the largest value of a feature map or, where that is larger, of 1."""

EXPORT_SHAPE = (2, 70, 102)
"""Batch, height and width of the image that is followed; none is one, which would stay fixed."""


def export_onnx(backbone: NeighborhoodBackbone, path: Path) -> float:
    """Exports a backbone, and checks its outputs in onnxruntime on images of several sizes.

    The model has the input ``image``, ``[batch, in_channels, height, width]``, float32, height and
    width at least 32, normalized as in training; and the outputs ``features0``, ... by the numbers
    of ``out_indices``.

    Args:
        backbone: The backbone, on the CPU. It is left in eval mode, frozen, and with the attention
            backend 'portable', whose operator :mod:`nat_mm.ops.onnx` translates.
        path: The ``.onnx`` file, written whole or, where the check fails, not at all.

    Returns:
        The largest difference that was found, as a part of what `TOLERANCE` says.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ArithmeticError: If an output differs by more than `TOLERANCE`.
    """
    import onnxruntime

    from nat_mm.ops.onnx import translations

    backbone.eval().requires_grad_(False)
    for module in backbone.modules():
        if isinstance(module, NeighborhoodAttention2D):
            module.backend = 'portable'
    with _without_messages():
        program = torch.onnx.export(
            backbone,
            (_image(backbone, EXPORT_SHAPE),),
            dynamo=True,
            opset_version=OPSET,
            input_names=['image'],
            output_names=output_names(backbone),
            dynamic_shapes=({0: 'batch', 2: 'height', 3: 'width'},),
            custom_translation_table=translations(),
            verbose=False,
        )
    if program is None:
        raise ArithmeticError('PyTorch exported no program')
    with whole_file(path) as unfinished:
        program.save(unfinished, external_data=False)
        session = onnxruntime.InferenceSession(unfinished, providers=['CPUExecutionProvider'])
        return max(_difference(backbone, session, shape) for shape in CHECKED_SHAPES)


def output_names(backbone: NeighborhoodBackbone) -> list[str]:
    """Names of the outputs of the exported model, in order."""
    return [f'features{index}' for index in backbone.out_indices]


def _difference(
    backbone: NeighborhoodBackbone, session: 'InferenceSession', shape: tuple[int, int, int]
) -> float:
    image = _image(backbone, shape)
    expected = backbone(image)
    found = [torch.from_numpy(each) for each in session.run(None, {'image': image.numpy()})]
    difference = max(
        float((one - other).abs().max() / one.abs().max().clamp(min=1))
        for one, other in zip(expected, found, strict=True)
    )
    if not difference <= TOLERANCE:
        batch, height, width = shape
        raise ArithmeticError(
            f'on {batch} image(s) of {height} x {width} onnxruntime computes features that differ '
            f'by {difference:.1e}, more than {TOLERANCE}'
        )
    return difference


def _image(backbone: NeighborhoodBackbone, shape: Sequence[int]) -> torch.Tensor:
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, backbone.in_channels, height, width, generator=generator)


@contextmanager
def _without_messages() -> Iterator[None]:
    """Keeps PyTorch's exporter from telling its own developers what it does."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
