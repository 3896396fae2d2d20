"""Image preprocessing as a part of the ONNX model.

Every exported network has the inputs ``network_image``, ``content`` and ``size``; see
`nat_mm.export.detector.ExportedDetector.forward`. A *front* computes them from the user's image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from nat_mm.config.objects import type_name
from nat_mm.errors import UserError
from nat_mm.export.program import OPSET
from nat_mm.inference.loading import ImageLoader

if TYPE_CHECKING:
    from onnx import ModelProto

NETWORK_INPUTS = ('network_image', 'content', 'size')

_PACKING = ('PackDetInputs', 'PackSegInputs')

_UNLIMITED = 2**15
"""Stands for infinity in ``scale``: no image is larger, and products fit into int32 in TensorRT."""


@dataclass(frozen=True)
class Preprocessing:
    """How a config's test pipeline prepares images.

    Attributes:
        scale: Width and height that images are resized to; None for no resizing.
        keep_ratio: Whether to keep the aspect ratio; ``scale`` then limits the longer and the
            shorter side, in either order.
        mean: Mean of each channel, in the order of the network's channels.
        deviation: Standard deviation of each channel.
        reversed_channels: Whether BGR is converted to RGB.
        divisor: Height and width are padded at the bottom and right to multiples of this.
        padding: Padding value.
        smallest: Height and width are padded to at least this, as
            `nat_mm.inference.model_settings.small_images_padded` does.
        small_divisor: Takes the place of ``divisor`` if either is less than ``smallest``.
    """

    scale: tuple[int, int] | None
    keep_ratio: bool
    mean: Sequence[float]
    deviation: Sequence[float]
    reversed_channels: bool
    divisor: int
    padding: float
    smallest: int = 0
    small_divisor: int = 1


def read_preprocessing(config: Config, preprocessor: Any, *, smallest: int = 0) -> Preprocessing:
    """Reads the test pipeline of a config.

    Args:
        config: The config.
        preprocessor: The model's data preprocessor, of mmdet or mmseg.
        smallest: A result of `nat_mm.inference.model_settings.smallest_input`.

    Returns:
        The preprocessing.

    Raises:
        UserError: If it contains something that cannot be exported.
    """
    resize: dict[str, Any] | None = None
    for transform in ImageLoader(config).others:
        name = type_name(transform)
        if name == 'Resize' and resize is None:
            resize = transform
        elif name not in _PACKING:
            raise UserError(
                f'{config.filename}: {name} of the test pipeline cannot be exported, only a '
                'Resize can: leave out --preprocess and do this yourself'
            )
    scale, keep_ratio = None, False
    if resize is not None:
        scale, keep_ratio = resize.get('scale'), resize.get('keep_ratio', False)
        other = resize.keys() - {'type', 'scale', 'keep_ratio'}
        if other or scale is None:
            raise UserError(
                f'{config.filename}: a Resize of the test pipeline can be exported if it has '
                f'scale and keep_ratio alone, got {", ".join(sorted(resize))}'
            )
        width, height = (scale, scale) if isinstance(scale, int) else scale
        scale = int(min(width, _UNLIMITED)), int(min(height, _UNLIMITED))
    settings = getattr(preprocessor, 'test_cfg', None) or {}
    if settings.get('size') is not None:
        raise UserError(
            f'{config.filename}: data_preprocessor.test_cfg.size cannot be exported, only '
            'size_divisor can: leave out --preprocess and pad yourself'
        )
    mean, deviation = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    if preprocessor._enable_normalize:
        mean, deviation = (
            each.flatten().tolist() for each in (preprocessor.mean, preprocessor.std)
        )
    if hasattr(preprocessor, 'test_cfg'):
        # mmseg's preprocessor. In OneDL's fork, it also has a pad_size_divisor, which is not used.
        divisor = settings.get('size_divisor')
    else:
        divisor = preprocessor.pad_size_divisor
    padding = getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0))
    return Preprocessing(
        scale=scale,
        keep_ratio=keep_ratio,
        mean=mean,
        deviation=deviation,
        reversed_channels=reverses_channels(preprocessor),
        divisor=divisor or 1,
        padding=float(padding),
        smallest=smallest,
        small_divisor=math.lcm(divisor, smallest or 1) if divisor else 1,
    )


def reverses_channels(preprocessor: Any) -> bool:
    """Returns whether a data preprocessor of mmdet or mmseg converts BGR to RGB."""
    names = ('_channel_conversion', 'channel_conversion')
    return any(getattr(preprocessor, name, False) for name in names)


def with_front(network: 'ModelProto', front: str) -> 'ModelProto':
    """Prepends a front to a network.

    Args:
        network: The network, with the inputs `NETWORK_INPUTS`.
        front: A graph in ONNX's text format with these as outputs.

    Returns:
        The model.
    """
    from onnx import compose, parser

    head = f'<ir_version: {network.ir_version}, opset_import: ["": {OPSET}]>'
    before = parser.parse_model(f'{head}\n{front}')
    model = compose.merge_models(before, network, io_map=[(each, each) for each in NETWORK_INPUTS])
    del model.opset_import[1:]  # both parts have the same
    return model


def plain_front(batch: str) -> str:
    """Returns the front for images that are already prepared: float32, [batch, 3, height, width].

    Args:
        batch: Name of the batch dimension, or 1.
    """
    return f"""plain (float[{batch}, 3, height, width] image)
    => (float[{batch}, 3, height, width] network_image, int64[2] content, int64[2] size) {{
        network_image = Identity (image)
        content = Shape <start = 2> (image)
        size = Shape <start = 2> (image)
    }}"""


def image_front(settings: Preprocessing) -> str:
    """Returns the front for images as OpenCV reads them: uint8, [height, width, 3], BGR."""
    steps = [
        'front_shape = Shape (image)',
        'front_0 = Constant <value = int64[1] {0}> ()',
        'front_2 = Constant <value = int64[1] {2}> ()',
        'size = Slice (front_shape, front_0, front_2)',
        'front_float = Cast <to = 1> (image)',
        'front_planes = Transpose <perm = [2, 0, 1]> (front_float)',
        'front_batch = Unsqueeze (front_planes, front_0)',
    ]
    if settings.scale is None:
        steps += ['content = Identity (size)', 'front_resized = Identity (front_batch)']
    else:
        steps += _content(settings.scale, settings.keep_ratio)
        steps += [
            'front_channels = Constant <value = int64[2] {1, 3}> ()',
            'front_sizes = Concat <axis = 0> (front_channels, content)',
            'front_exact = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">'
            ' (front_batch, , , front_sizes)',
            'front_half = Constant <value = float {0.5}> ()',
            'front_raised_values = Add (front_exact, front_half)',
            'front_resized = Floor (front_raised_values)',
        ]
    order = '2, 1, 0' if settings.reversed_channels else '0, 1, 2'
    steps += [
        f'front_order = Constant <value = int64[3] {{{order}}}> ()',
        'front_ordered = Gather <axis = 1> (front_resized, front_order)',
        f'front_mean = {_channels(settings.mean)}',
        f'front_deviation = {_channels(settings.deviation)}',
        'front_centered = Sub (front_ordered, front_mean)',
        'front_normal = Div (front_centered, front_deviation)',
        f'front_smallest = Constant <value = int64[1] {{{settings.smallest}}}> ()',
        *_divisor(settings),
        'front_enlarged = Max (content, front_smallest)',
        'front_one = Constant <value = int64[1] {1}> ()',
        'front_rest = Sub (front_divisor, front_one)',
        'front_raised = Add (front_enlarged, front_rest)',
        'front_units = Div (front_raised, front_divisor)',
        'front_padded = Mul (front_units, front_divisor)',
        'front_missing = Sub (front_padded, content)',
        'front_none = Constant <value = int64[6] {0, 0, 0, 0, 0, 0}> ()',
        'front_pads = Concat <axis = 0> (front_none, front_missing)',
        f'front_value = Constant <value = float {{{float(settings.padding)}}}> ()',
        'network_image = Pad <mode = "constant"> (front_normal, front_pads, front_value)',
    ]
    body = '\n        '.join(steps)
    return f"""prepared (uint8[height, width, 3] image)
    => (float[1, 3, padded_height, padded_width] network_image, int64[2] content, int64[2] size) {{
        {body}
    }}"""


def _content(scale: tuple[int, int], keep_ratio: bool) -> list[str]:
    """Computes height and width after resizing.

    If the aspect ratio is kept, an image gets the largest size at which neither side exceeds the
    scale, rounded: floor(side * limit / other + 1/2), in integers, since TensorRT has no float64.
    """
    if not keep_ratio:
        return [f'content = Constant <value = int64[2] {{{scale[1]}, {scale[0]}}}> ()']
    steps = []
    for name, reduce, limit in (
        ('longest', 'ReduceMax', max(scale)),
        ('shortest', 'ReduceMin', min(scale)),
    ):
        steps += [
            f'front_{name} = {reduce} <keepdims = 1> (size)',
            f'front_{name}_double = Mul (front_{name}, front_2)',
            f'front_{name}_limit = Constant <value = int64[1] {{{2 * limit}}}> ()',
            f'front_{name}_product = Mul (size, front_{name}_limit)',
            f'front_{name}_raised = Add (front_{name}_product, front_{name})',
            f'front_{name}_sides = Div (front_{name}_raised, front_{name}_double)',
        ]
    return [*steps, 'content = Min (front_longest_sides, front_shortest_sides)']


def _divisor(settings: Preprocessing) -> list[str]:
    """Computes what height and width are padded to multiples of."""
    usual = f'Constant <value = int64[1] {{{settings.divisor}}}> ()'
    if settings.small_divisor == settings.divisor:
        return [f'front_divisor = {usual}']
    return [
        f'front_usual_divisor = {usual}',
        f'front_small_divisor = Constant <value = int64[1] {{{settings.small_divisor}}}> ()',
        'front_side = ReduceMin <keepdims = 1> (content)',
        'front_is_small = Less (front_side, front_smallest)',
        'front_divisor = Where (front_is_small, front_small_divisor, front_usual_divisor)',
    ]


def _channels(values: Sequence[float]) -> str:
    numbers = ', '.join(repr(float(value)) for value in values)
    return f'Constant <value = float[1, {len(values)}, 1, 1] {{{numbers}}}> ()'
