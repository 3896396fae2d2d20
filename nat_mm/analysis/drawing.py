"""Draws over images what models look at."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from nat_mm.analysis.windows import AttentionWindow

COLORS = 'inferno'
"""Color map of weights and heat maps, from 0 to the highest value."""
LAYER_COLORS = 'viridis_r'
"""Color map of layers, from the first to the last."""
TOKEN_COLOR = (255, 255, 0)
"""Cyan, BGR: outline of the token that attends."""
CELL_COLOR = (110, 110, 110)
"""Gray: outline of every cell of its window."""

Image = NDArray[np.uint8]


def draw_window(
    image: Image,
    window: AttentionWindow,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Image:
    """Draws a window over an image: the brighter a cell, the higher its weight.

    Inside the window's cells, the color of the weight is blended with the image in gray; outside,
    the image is darkened. The token that attends has a cyan outline. Cells in the padding of a
    small map lie outside the image and are not drawn.

    Args:
        image: [height, width, 3], uint8, BGR.
        window: What to draw.
        scale: Pixels of the image per pixel of the backbone's input, (x, y).

    Returns:
        A new image of the same shape.
    """
    highest = float(window.weights.max())
    drawn, gray = _darker(image), _in_gray(image)
    for box, weight in zip(window.boxes, window.weights, strict=True):
        left, top, right, bottom = _scale(box, scale)
        color = color_at(COLORS, float(weight) / highest)
        drawn[top:bottom, left:right] = _blend(gray[top:bottom, left:right], color, 0.65)
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), CELL_COLOR, 1)
    left, top, right, bottom = _scale(window.box, scale)
    cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), TOKEN_COLOR, _thickness(image))
    return drawn


def draw_fields(image: Image, fields: Sequence[NDArray[np.bool_]]) -> Image:
    """Colors each pixel of an image by the first layer after which it reaches a token.

    Every layer has a color from `LAYER_COLORS`, which fills the pixels of its field that are in no
    earlier field and outlines the whole field. The image is darkened where no field reaches.

    Args:
        image: [height, width, 3], uint8, BGR.
        fields: For each layer from the first to the last, the pixels that reach the token,
            [height, width].

    Returns:
        A new image of the same shape.
    """
    drawn, gray = _darker(image), _in_gray(image)
    seen = np.zeros(image.shape[:2], bool)
    colors = [
        color_at(LAYER_COLORS, number / max(len(fields) - 1, 1)) for number in range(len(fields))
    ]
    for field, color in zip(fields, colors, strict=True):
        new = field & ~seen
        drawn[new] = _blend(gray[new], color, 0.5)
        seen |= field
    for field, color in reversed(list(zip(fields, colors, strict=True))):
        outlines, _ = cv2.findContours(
            field.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, outlines, -1, color, _thickness(image))
    return drawn


def draw_heat(image: Image, heat: NDArray, *, highest: float | None = None) -> Image:
    """Draws a heat map over an image.

    Args:
        image: [height, width, 3], uint8, BGR.
        heat: [height, width], not negative.
        highest: The value that gets the brightest color; by default, the highest one.

    Returns:
        A new image of the same shape.
    """
    highest = highest or max(float(heat.max()), float(np.finfo(np.float32).tiny))
    shares = np.clip(heat / highest, 0, 1)
    colors = colormaps[COLORS](shares)[..., 2::-1] * 255
    strength = 0.85 * np.sqrt(shares)[..., None]
    return np.clip(_in_gray(image) * 0.6 * (1 - strength) + colors * strength, 0, 255).astype(
        np.uint8
    )


def color_at(name: str, share: float) -> tuple[int, int, int]:
    """Looks up a color in a color map, BGR.

    Args:
        name: Name of one of matplotlib's color maps.
        share: Position in it, from 0 to 1.

    Returns:
        Blue, green and red, each from 0 to 255.
    """
    red, green, blue, _ = colormaps[name](float(share), bytes=True)
    return int(blue), int(green), int(red)


def _in_gray(image: Image) -> Image:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def _darker(image: Image) -> Image:
    return (image * 0.55).astype(np.uint8)


def _thickness(image: Image) -> int:
    return max(1, round(min(image.shape[:2]) / 300))


def _blend(pixels: Image, color: tuple[int, int, int], strength: float) -> Image:
    return (pixels * (1 - strength) + np.array(color) * strength).astype(np.uint8)


def _scale(box: Tensor, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """Scales a box to (left, top, right, bottom) in whole pixels of the image."""
    left, top, right, bottom = box.tolist()
    x, y = scale
    return round(left * x), round(top * y), round(right * x), round(bottom * y)
