"""Composes a scene: overlapping objects of random kinds on a photograph."""

from dataclasses import dataclass

import cv2
import numpy as np

from nat_mm.demo.appearance import paint_surface
from nat_mm.demo.kinds import KINDS, sample_outline
from nat_mm.demo.options import DatasetOptions
from nat_mm.demo.photographs import sample_background

UNLABELED = 0
BACKGROUND = 1
FIRST_KIND = 2

_OVERSAMPLING = 4


@dataclass(frozen=True)
class SceneObject:
    """An annotated object: its index in KINDS, and its visible pixels as bool [size, size]."""

    kind: int
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """An image with its annotations.

    Attributes:
        image: uint8 [size, size, 3], BGR.
        instances: Annotated objects, from back to front; their masks never overlap.
        labels: uint8 [size, size]: 0 for unlabeled pixels (of objects too hidden to be annotated),
            1 for the background, 2 + index of the kind for objects.
    """

    image: np.ndarray
    instances: tuple[SceneObject, ...]
    labels: np.ndarray


def _project(points: np.ndarray, diameter: float, view: np.ndarray) -> np.ndarray:
    """Stretches, tilts (perspective), rotates and scales an outline; centered, in pixels."""
    aspect, angle, tilt_x, tilt_y = view
    points = points * [np.sqrt(aspect), 1 / np.sqrt(aspect)]
    points = points / (1 + points @ np.array([[tilt_x], [tilt_y]]))
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]]) * (diameter / 2)


def _draw_coverage(kind: str, options: DatasetOptions, rng: np.random.Generator) -> np.ndarray:
    """Draws the coverage of a random object, tightly cropped: float32 [height, width] in [0, 1]."""
    contours = sample_outline(kind, rng)
    # Uniform on a log scale, for as many small objects as large ones.
    diameter = options.image_size * np.exp(rng.uniform(*np.log(options.object_size)))
    view = np.array(
        [rng.uniform(0.7, 1.4), rng.uniform(-0.7, 0.7), *rng.uniform(-0.2, 0.2, size=2)]
    )
    contours = [_project(contour, diameter, view) for contour in contours]
    low = np.concatenate(contours).min(axis=0) - 1
    high = np.concatenate(contours).max(axis=0) + 1
    width, height = np.ceil(high - low).astype(int)
    canvas = np.zeros((height * _OVERSAMPLING, width * _OVERSAMPLING), np.uint8)
    corners = [np.round((c - low) * _OVERSAMPLING).astype(np.int32) for c in contours]
    cv2.fillPoly(canvas, corners, 255)
    coverage = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) / 255


def _place(patch: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """Puts a patch on an empty square canvas, cropping what lies outside."""
    canvas = np.zeros((size, size, *patch.shape[2:]), np.float32)
    height, width = patch.shape[:2]
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + height, size), min(left + width, size)
    canvas[y0:y1, x0:x1] = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def _cast_shadow(image: np.ndarray, coverage: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    reach = rng.uniform(1, 5)
    offset = np.float32([[1, 0, rng.uniform(-reach, reach)], [0, 1, rng.uniform(-reach, reach)]])
    shadow = cv2.warpAffine(coverage, offset, coverage.shape[::-1])
    shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(1, 3))
    return image * (1 - rng.uniform(0.1, 0.5) * shadow[..., None])


def make_scene(split: str, index: int, options: DatasetOptions) -> Scene:
    """Composes scene number ``index`` of a split; the same arguments produce the same scene.

    Args:
        split: 'train' or 'val', which determines the parts of the background photographs.
        index: Number of the scene, from 0.
        options: Seed, sizes and numbers of objects.
    """
    rng = np.random.default_rng([options.seed, ('train', 'val').index(split), index])
    size = options.image_size
    image = sample_background(split, size, rng)
    owner = np.full((size, size), -1, np.int16)
    kinds, full_areas = [], []
    for number in range(int(rng.integers(options.min_objects, options.max_objects + 1))):
        kind = int(rng.integers(len(KINDS)))
        patch = _draw_coverage(KINDS[kind], options, rng)
        center_y, center_x = rng.uniform(0.08, 0.92, size=2) * size
        top, left = int(center_y - patch.shape[0] / 2), int(center_x - patch.shape[1] / 2)
        coverage = _place(patch, top, left, size)
        surface = paint_surface(KINDS[kind], patch, rng)
        image = _cast_shadow(image, coverage, rng)
        alpha = coverage[..., None]
        image = image * (1 - alpha) + _place(surface, top, left, size) * alpha
        owner[coverage >= 0.5] = number
        kinds.append(kind)
        full_areas.append(int((patch >= 0.5).sum()))
    image += rng.normal(0, rng.uniform(0, 0.025), image.shape)
    image = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)

    labels = np.where(owner == -1, BACKGROUND, UNLABELED).astype(np.uint8)
    instances = []
    for number, (kind, full_area) in enumerate(zip(kinds, full_areas, strict=True)):
        mask = owner == number
        visible = int(mask.sum())
        if visible >= options.min_visible_fraction * full_area and visible >= options.min_area:
            labels[mask] = FIRST_KIND + kind
            instances.append(SceneObject(kind=kind, mask=mask))
    return Scene(image=image, instances=tuple(instances), labels=labels)
