"""Writes exported models, after verifying each."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nat_mm.export.quantization import quantize
from nat_mm.export.verification import (
    agreement,
    compare,
    generated_images,
    least_agreement,
    onnxruntime_runtime,
    prepare,
)
from nat_mm.files import unfinished_path, whole_file
from nat_mm.inference.model import Model

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Written:
    """Information about an exported model.

    Attributes:
        agreement: Fraction of pixels or objects on which onnxruntime agrees with PyTorch.
        compared: Number of objects that were compared or, for a segmentor, images.
        quantized: Number of quantized layers.
        quantized_agreement: Like ``agreement``, for the quantized model.
    """

    agreement: float
    compared: int
    quantized: int = 0
    quantized_agreement: float | None = None


def write_model(
    exported: 'ModelProto',
    path: Path,
    model: Model,
    *,
    preprocess: bool,
    images: Sequence[np.ndarray] = (),
    calibration: Sequence[np.ndarray] = (),
) -> Written:
    """Compares an exported model with PyTorch's and writes it if they agree.

    Args:
        exported: A result of `nat_mm.export.model.model_to_onnx`.
        path: The ``.onnx`` file, written completely or not at all.
        model: The model that was exported.
        preprocess: Whether it was exported with its preprocessing.
        images: Additional images for the comparison, [height, width, 3], uint8, BGR.
        calibration: Images of this kind for quantization; if empty, the model stays in float32.

    Returns:
        The results of the comparison.

    Raises:
        ArithmeticError: If onnxruntime's predictions differ from PyTorch's.
    """
    checked = [*generated_images(), *images, *calibration[:8]]
    with _temporary(path) as exact, whole_file(path) as unfinished:
        exact.write_bytes(exported.SerializeToString())
        numbers = _compare(model, exact, checked, preprocess)
        share = agreement(numbers)
        least = least_agreement(model, preprocess=preprocess)
        if share < least:
            what = 'objects' if model.task == 'detection' else 'pixels'
            raise ArithmeticError(
                f'onnxruntime and PyTorch agree on {share:.1%} of the {what} in {len(checked)} '
                f'images, less than {least:.0%}'
            )
        if not calibration:
            exact.replace(unfinished)
            return Written(share, len(numbers))
        inputs = (each if preprocess else prepare(model, each).numpy() for each in calibration)
        count = quantize(exact, unfinished, inputs)
        quantized = agreement(_compare(model, unfinished, checked, preprocess))
        return Written(share, len(numbers), count, quantized)


def _compare(
    model: Model, path: Path, images: Iterable[np.ndarray], preprocess: bool
) -> list[float]:
    runtime = onnxruntime_runtime(path)
    return [
        number
        for image in images
        for number in compare(model, runtime, image, preprocess=preprocess)
    ]


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = unfinished_path(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
