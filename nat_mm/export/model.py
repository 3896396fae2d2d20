"""Exports whole models."""

from typing import TYPE_CHECKING

import torch

from nat_mm.backbones.base import image_channels
from nat_mm.errors import UserError
from nat_mm.export.detector import ExportedDetector
from nat_mm.export.preprocessing import (
    NETWORK_INPUTS,
    image_front,
    plain_front,
    read_preprocessing,
    with_front,
)
from nat_mm.export.program import to_onnx
from nat_mm.export.segmentor import OUTPUTS, ExportedSegmentor
from nat_mm.inference.model import Model
from nat_mm.inference.model_settings import smallest_input

if TYPE_CHECKING:
    from onnx import ModelProto


def model_to_onnx(model: Model, *, preprocess: bool) -> 'ModelProto':
    """Exports a detector or segmentor including post-processing such as NMS.

    Results refer to the input image, at its size. Detectors accept one image at a time. For the
    outputs, see `nat_mm.export.detector.ExportedDetector` and
    `nat_mm.export.segmentor.ExportedSegmentor`.

    Args:
        model: The model, on the CPU; it is not modified.
        preprocess: Whether the input ``image`` is uint8, [height, width, 3], BGR, and is resized,
            normalized and padded as in the config's test pipeline; otherwise it is float32,
            [batch, 3, height, width], already prepared.

    Returns:
        The ONNX model, not yet verified.

    Raises:
        UserError: If a part of the model or of its test pipeline cannot be exported, or its images
            do not have 3 channels.
        ArithmeticError: If PyTorch cannot export the model.
    """
    axes = {2: 'height', 3: 'width'}
    network: ExportedDetector | ExportedSegmentor
    if model.task == 'detection':
        network, batch = ExportedDetector(model.module), 1
        outputs = network.outputs
    elif model.task == 'segmentation':
        network, batch = ExportedSegmentor(model.module), 2
        outputs = OUTPUTS
        axes[0] = 'batch'
    else:
        raise UserError(
            'only detectors and segmentors can be exported as a whole: '
            '--part backbone exports the backbone'
        )
    channels = image_channels(model.module)
    if channels != 3:
        raise UserError(
            f'{model.config.filename}: a whole model can be exported only for images with 3 '
            f'channels, and its backbone has in_channels={channels}: --part backbone exports the '
            'backbone'
        )
    if preprocess:
        settings = read_preprocessing(
            model.config,
            model.module.data_preprocessor,
            smallest=smallest_input(model.module),
        )
        if model.task == 'detection' and settings.scale is None:
            raise UserError(
                f'{model.config.filename}: the test pipeline has no Resize, and mmdet predicts '
                'only with one, such as dict(type="Resize", scale=(1333, 800), keep_ratio=True)'
            )
        front = image_front(settings)
    else:
        front = plain_front('1' if batch == 1 else 'batch')
    arguments = (
        torch.zeros(batch, 3, 128, 160),
        torch.tensor([127, 150]),
        torch.tensor([254, 300]),
    )
    exported = to_onnx(
        network,
        arguments,
        input_names=NETWORK_INPUTS,
        output_names=outputs,
        dynamic_axes=axes,
    )
    return with_front(exported, front)
