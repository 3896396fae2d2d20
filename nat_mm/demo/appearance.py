"""Paints the surfaces of objects: textures, colors and lighting.

As in the real world, most objects of a kind share a pattern and a range of hues. The scale,
direction and contrast of the pattern, the brightness and saturation of the colors, grain and light
are drawn for each object.
"""

import cv2
import numpy as np

from nat_mm.demo.kinds import TYPICAL_HUE, TYPICAL_PATTERN

_TYPICAL_SHARE = 0.85
"""Share of objects that have their kind's typical pattern; the others have a random one."""
_HUE_DEVIATION = 8
"""Standard deviation of the hue within a kind, in half degrees; kinds are 20 or more apart."""


def _smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _pattern(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns float32 [height, width] in [0, 1]: share of the second color at each pixel."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y
    frequency = rng.uniform(3, 7) * 2 * np.pi
    name = TYPICAL_PATTERN[kind]
    if rng.random() > _TYPICAL_SHARE:
        name = rng.choice(list(TYPICAL_PATTERN.values()))
    if name == 'gradient':
        return np.clip((along - along.min()) / max(float(np.ptp(along)), 1e-6), 0, 1)
    if name == 'grooves':
        wave = np.sin(1.5 * frequency * np.hypot(x - x.mean(), y - y.mean()))
    elif name == 'stripes':
        wave = np.sin(frequency * along)
    elif name == 'checks':
        wave = np.sin(frequency * along) * np.sin(frequency * across) * 2
    elif name == 'dots':
        wave = np.cos(frequency * along) + np.cos(frequency * across) - 0.8
    else:
        wave = (_smooth_noise(height, width, int(rng.integers(4, 9)), rng) - 0.5) * 4
    return np.clip(0.5 + wave * 1.5, 0, 1)


def _color(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Draws a color of a kind: float32 [3], BGR in [0, 1]."""
    hue = round(TYPICAL_HUE[kind] + rng.normal(0, _HUE_DEVIATION)) % 180
    saturation, brightness = rng.integers(110, 256, size=2)
    pixel = np.array([[[hue, saturation, brightness]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32) / 255


def _two_colors(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws two BGR colors: both typical of the kind, or a typical one and a shade of it."""
    first = _color(kind, rng)
    if rng.random() < 0.5:
        return first, _color(kind, rng)
    return first, np.clip(first * np.float32(rng.uniform(0.3, 1.6)), 0, 1)


def paint_surface(kind: str, coverage: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints the surface of one object: two colors, a pattern, grain and a light.

    Args:
        kind: One of :data:`nat_mm.demo.kinds.KINDS`.
        coverage: float32 [height, width] in [0, 1]: how much of each pixel the object covers; its
            edges catch the light.
        rng: Source of randomness.

    Returns:
        float32 [height, width, 3], BGR in [0, 1].
    """
    height, width = coverage.shape
    first, second = _two_colors(kind, rng)
    mix = _pattern(kind, height, width, rng)[..., None]
    surface = first * (1 - mix) + second * mix
    surface += rng.normal(0, rng.uniform(0, 0.06), (height, width, 1)).astype(np.float32)

    angle = rng.uniform(0, 2 * np.pi)
    light_x, light_y = np.cos(angle), np.sin(angle)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    body = cv2.GaussianBlur(coverage, (0, 0), max(height, width) * 0.03 + 0.5)
    slope_x = cv2.Sobel(body, cv2.CV_32F, 1, 0)
    slope_y = cv2.Sobel(body, cv2.CV_32F, 0, 1)
    light = 1 + rng.uniform(0, 0.3) * (light_x * x + light_y * y)
    edge = rng.uniform(0, 0.4) * (light_x * slope_x + light_y * slope_y)
    return np.clip(surface * light[..., None] + edge[..., None], 0, 1).astype(np.float32)
