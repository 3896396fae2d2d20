"""Static quantization from float32 to 8-bit integers with onnxruntime."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nat_mm.export.program import without_messages

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZED = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def quantize(source: Path, target: Path, images: Iterable[np.ndarray]) -> int:
    """Quantizes the convolutions and linear layers of an exported model.

    Quantization is symmetric around 0, as TensorRT requires, with a scale per channel of the
    weights and one per activation, which covers the largest value in the calibration. Attention,
    NMS and the pasting of masks stay in float32.

    Args:
        source: The ONNX file.
        target: The ONNX file to write.
        images: Inputs of the model for calibration.

    Returns:
        The number of quantized layers.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {'image': image}

    names = layers(onnx.load(source))
    with without_messages(None):
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_quantize=names,
            extra_options={'ActivationSymmetric': True, 'WeightSymmetric': True},
        )
    return len(names)


def layers(model: 'ModelProto') -> list[str]:
    """Returns the names of the nodes with weights, which are quantized."""
    weights = {each.name for each in model.graph.initializer}
    nodes: Iterable[Any] = model.graph.node
    return [
        node.name for node in nodes if node.op_type in QUANTIZED and weights & {*node.input[1:2]}
    ]
