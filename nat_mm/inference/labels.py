"""Writes names over an image: inside it, legible, and without overlap where there is room."""

import functools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nat_mm.fonts import find_font, writable
from nat_mm.inference.palettes import Color

Box = tuple[float, float, float, float]

_SMALLEST_FONT = 10
"""In pixels: smaller letters are illegible."""
_COVERED = 1 / 5
"""Maximum share of the image covered by names, so that they do not hide a small image; the first
box is named anyway."""
_OVERLAP = 1 / 10
"""Maximum share of a name that overlaps others; beyond that, it is left out."""


class Labels:
    """The names on an image, each in a box of its class's color.

    Args:
        image: [height, width, 3], uint8, RGB; the names are drawn into it.
    """

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self.height, self.width = image.shape[:2]
        self._font_size = max(_SMALLEST_FONT, round(math.sqrt(self.height * self.width) / 50))
        self._padding = max(1, self._font_size // 6)
        self._taken = np.zeros((0, 4))

    def size(self, name: str) -> tuple[int, int]:
        """Returns width and height of a name with its box, in pixels, at most the image's."""
        width, height = self._render(name, '').shape[::-1]
        return min(width, self.width), min(height, self.height)

    def write(
        self, name: str, color: Color, box: Box, *, note: str = '', center: bool = False
    ) -> None:
        """Writes a name near a box, where it overlaps least with the names written before.

        The name is left out if names would cover each other or too much of the image.

        Args:
            name: The name.
            color: Color of its background.
            box: Left, top, right and bottom of the named object or region, in pixels.
            note: Text after the name; kept even if the name is shortened to fit.
            center: Whether the name goes into the middle of the box instead of above it.
        """
        letters = self._render(name, note)[: self.height, : self.width]
        height, width = letters.shape
        places = list(self._places(box, width, height, center=center))
        overlaps = [self._overlap(left, top, width, height) for left, top in places]
        best = int(np.argmin(overlaps))
        covered = np.prod(self._taken[:, 2:] - self._taken[:, :2], axis=1).sum() + width * height
        too_much = covered > _COVERED * self.width * self.height and (len(self._taken) or center)
        if too_much or overlaps[best] > _OVERLAP * width * height:
            return
        left, top = places[best]
        self._taken = np.vstack([self._taken, (left, top, left + width, top + height)])
        strength = letters[..., None] / 255
        self._image[top : top + height, left : left + width] = (
            np.array(color) * (1 - strength) + np.array(_color_on(color)) * strength
        ).round()

    def _places(
        self, box: Box, width: int, height: int, *, center: bool
    ) -> Iterator[tuple[int, int]]:
        """Yields candidates for the name's upper left corner inside the image, the best first."""
        left, top, right, bottom = box
        middle = (left + right - width) / 2
        wished = [(left, top - height), (left, top), (left, bottom), (left, bottom - height)]
        wished += [(right - width, top - height), (right - width, top)]
        if center:
            wished = [(middle, (top + bottom - height) / 2), (middle, top - height)]
            wished += [(middle, bottom), (right, top), (left - width, top)]
        wished += [(wished[0][0], wished[0][1] + step * height) for step in (1, -1, 2, -2, 3, -3)]
        for x, y in wished:
            yield (
                round(min(max(x, 0), self.width - width)),
                round(min(max(y, 0), self.height - height)),
            )

    def _overlap(self, left: int, top: int, width: int, height: int) -> float:
        start, end = np.array([left, top]), np.array([left + width, top + height])
        sides = np.minimum(self._taken[:, 2:], end) - np.maximum(self._taken[:, :2], start)
        return float(sides.clip(min=0).prod(axis=1).sum())

    def _render(self, name: str, note: str) -> np.ndarray:
        return _render(name, note, self._font_size, self._padding, self.width)


@functools.lru_cache(maxsize=1024)
def _render(name: str, note: str, font_size: int, padding: int, widest: int) -> np.ndarray:
    """Renders the letters to [height, width], uint8: how much they cover each pixel of the box."""
    font = _load_font(find_font(name), font_size)
    text = _fit(writable(name), note, font, widest - 2 * padding)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    size = (math.ceil(right - left) + 2 * padding, ascent + descent + 2 * padding)
    canvas = Image.new('L', size)
    ImageDraw.Draw(canvas).text((padding - left, padding), text, fill=255, font=font)
    return np.asarray(canvas)


def _fit(name: str, note: str, font: ImageFont.FreeTypeFont, widest: int) -> str:
    """Joins name and note, shortening the name until they are narrow enough."""
    text = f'{name} {note}'.strip()
    for kept in range(len(name) - 1, 0, -1):
        if font.getlength(text) <= widest:
            break
        text = f'{name[:kept]}… {note}'.strip()
    return text


@functools.lru_cache(maxsize=32)
def _load_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _color_on(background: Color) -> Color:
    """Returns black or white, whichever contrasts more with a color (WCAG 2's luminance)."""
    shares = np.array(background) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return (0, 0, 0) if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else (255, 255, 255)
