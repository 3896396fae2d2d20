"""Writes a backbone as an ONNX model for images of any size, verified in onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.export.program import for_export, to_onnx
from nat_mm.files import whole_file

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHECKED_SHAPES = ((1, 64, 96), (2, 37, 130), (1, 32, 47))
"""Batch, height and width of the test images: different from the export's, odd, and small."""

TOLERANCE = 1e-4
"""Relative to the largest value of a feature map or 1, whichever is larger."""

EXPORT_SHAPE = (2, 70, 102)
"""Batch, height and width of the traced images; a size of 1 would become fixed."""


def write_backbone(backbone: NeighborhoodBackbone, path: Path) -> float:
    """Exports a backbone, and verifies its outputs in onnxruntime on images of several sizes.

    The model has the input ``image``, ``[batch, in_channels, height, width]``, float32, with height
    and width at least 32, normalized as in training; and the outputs ``features0``, ..., numbered
    as in ``out_indices``.

    Args:
        backbone: The backbone, on the CPU and in eval mode; it is not modified.
        path: The ``.onnx`` file, written completely or, if the check fails, not at all.

    Returns:
        The largest difference found, relative to the same value as `TOLERANCE`.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ArithmeticError: If an output differs by more than `TOLERANCE`.
    """
    import onnxruntime

    exported = to_onnx(
        for_export(backbone),
        (_image(backbone, EXPORT_SHAPE),),
        input_names=['image'],
        output_names=output_names(backbone),
        dynamic_axes={0: 'batch', 2: 'height', 3: 'width'},
    )
    with whole_file(path) as unfinished:
        unfinished.write_bytes(exported.SerializeToString())
        session = onnxruntime.InferenceSession(unfinished, providers=['CPUExecutionProvider'])
        return max(_difference(backbone, session, shape) for shape in CHECKED_SHAPES)


def output_names(backbone: NeighborhoodBackbone) -> list[str]:
    """Returns the names of the exported model's outputs, in order."""
    return [f'features{index}' for index in backbone.out_indices]


def _difference(
    backbone: NeighborhoodBackbone, session: 'InferenceSession', shape: tuple[int, int, int]
) -> float:
    image = _image(backbone, shape)
    with torch.no_grad():
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
