"""Defines the kinds of objects in the generated dataset: names, outlines and typical looks."""

from collections.abc import Callable

import numpy as np

Contours = list[np.ndarray]


def _circle(radius: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(rng: np.random.Generator) -> Contours:
    points = int(rng.integers(5, 8))
    inner = rng.uniform(0.36, 0.48)
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return [radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def _ring(rng: np.random.Generator) -> Contours:
    return [_circle(1.0), _circle(rng.uniform(0.42, 0.66))]


def _cross(rng: np.random.Generator) -> Contours:
    a = rng.uniform(0.22, 0.36)
    quarter = np.array([[1, -a], [1, a], [a, a]])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return [np.concatenate([quarter @ turn.T for turn in turns])]


def _crescent(rng: np.random.Generator) -> Contours:
    """Outlines a unit disc minus a smaller disc with its center at (shift, 0)."""
    radius = rng.uniform(0.72, 0.86)
    shift = rng.uniform(0.45, 0.62)
    x = (1 - radius**2 + shift**2) / (2 * shift)
    y = np.sqrt(1 - x**2)
    outer = np.linspace(np.arctan2(y, x), 2 * np.pi - np.arctan2(y, x), 48)
    inner = np.linspace(2 * np.pi - np.arctan2(y, x - shift), np.arctan2(y, x - shift), 48)
    outer_arc = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    inner_arc = radius * np.stack([np.cos(inner), np.sin(inner)], axis=1) + [shift, 0]
    return [np.concatenate([outer_arc, inner_arc]) + [0.25, 0]]


def _arrow(rng: np.random.Generator) -> Contours:
    shaft = rng.uniform(0.16, 0.3)
    head = rng.uniform(0.55, 0.8)
    neck = rng.uniform(-0.15, 0.25)
    return [
        np.array(
            [[1, 0], [neck, head], [neck, shaft], [-1, shaft], [-1, -shaft], [neck, -shaft],
             [neck, -head]]
        )
    ]  # fmt: skip


def _flower(rng: np.random.Generator) -> Contours:
    petals = int(rng.integers(5, 8))
    depth = rng.uniform(0.2, 0.32)
    angles = np.linspace(0, 2 * np.pi, 24 * petals, endpoint=False)
    radii = (1 + depth * np.cos(petals * angles)) / (1 + depth)
    return [radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)]


_OUTLINES: dict[str, Callable[[np.random.Generator], Contours]] = {
    'star': _star,
    'ring': _ring,
    'cross': _cross,
    'crescent': _crescent,
    'arrow': _arrow,
    'flower': _flower,
}

KINDS: tuple[str, ...] = tuple(_OUTLINES)
"""Names of the kinds, in the order of their COCO category ids (which start at 1)."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 50, 50), (204, 121, 167),
)  # fmt: skip
"""One RGB color per kind, for drawing annotations and predictions."""


TYPICAL_HUE: dict[str, int] = {
    'star': 28, 'ring': 105, 'cross': 75, 'crescent': 55, 'arrow': 178, 'flower': 150,
}  # fmt: skip
"""Mean hue of each kind, in OpenCV's half degrees, 0 to 179."""
TYPICAL_PATTERN: dict[str, str] = {
    'star': 'gradient',
    'ring': 'grooves',
    'cross': 'stripes',
    'crescent': 'clouds',
    'arrow': 'checks',
    'flower': 'dots',
}
"""Pattern of most objects of each kind; see nat_mm.demo.appearance."""


def sample_outline(kind: str, rng: np.random.Generator) -> Contours:
    """Samples an outline of a kind with random proportions (points of a star, width of a ring).

    Args:
        kind: One of :data:`KINDS`.
        rng: Source of randomness.

    Returns:
        Closed contours, each [points, 2] (x, y) within about [-1.3, 1.3]; there is a hole where two
        overlap (even-odd rule).

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in _OUTLINES:
        raise ValueError(f'kind must be one of {", ".join(KINDS)}; got {kind!r}')
    return _OUTLINES[kind](rng)
