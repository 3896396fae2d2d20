"""Surfaces of the objects: random textures and lighting. Neither depends on the kind."""

import cv2
import numpy as np


def _smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _pattern(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [height, width] in [0, 1]: how much of the second colour each pixel gets."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * x + np.cos(angle) * y
    frequency = rng.uniform(3, 9) * 2 * np.pi
    name = rng.choice(['plain', 'gradient', 'stripes', 'checks', 'dots', 'clouds'])
    if name == 'plain':
        return np.zeros((height, width), np.float32)
    if name == 'gradient':
        return np.clip((along - along.min()) / max(float(np.ptp(along)), 1e-6), 0, 1)
    if name == 'stripes':
        wave = np.sin(frequency * along)
    elif name == 'checks':
        wave = np.sin(frequency * along) * np.sin(frequency * across) * 2
    elif name == 'dots':
        wave = np.cos(frequency * along) + np.cos(frequency * across) - 0.8
    else:
        wave = (_smooth_noise(height, width, int(rng.integers(4, 9)), rng) - 0.5) * 4
    return np.clip(0.5 + wave * 1.5, 0, 1)


def _two_colours(avoid: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two BGR colours, the first at least a little different from the colour to avoid."""
    first = rng.random(3, dtype=np.float32)
    while np.abs(first - avoid).max() < 0.2:
        first = rng.random(3, dtype=np.float32)
    second = np.clip(first + rng.uniform(-0.5, 0.5, 3).astype(np.float32), 0, 1)
    return first, second


def paint_surface(
    coverage: np.ndarray, background_colour: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Paints the surface of one object: two random colours, a pattern, grain and a light.

    Args:
        coverage: float32 [height, width] in [0, 1], how much of each pixel the object covers; its
            edges catch the light.
        background_colour: float32 [3], BGR in [0, 1], mean colour behind the object, which the
            main colour keeps away from, so that the object can be seen.
        rng: source of all choices.

    Returns:
        float32 [height, width, 3], BGR in [0, 1].
    """
    height, width = coverage.shape
    first, second = _two_colours(background_colour, rng)
    mix = _pattern(height, width, rng)[..., None]
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
