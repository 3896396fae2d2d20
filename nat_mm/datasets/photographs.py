"""Background photographs: those that scikit-image's wheel carries, nothing is downloaded."""

from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    'train': (
        'astronaut.png', 'coffee.png', 'motorcycle_left.png', 'camera.png', 'gravel.png',
        'brick.png', 'hubble_deep_field.jpg', 'ihc.png', 'coins.png', 'text.png',
    ),
    'val': ('chelsea.png', 'rocket.jpg', 'grass.png', 'moon.png', 'page.png'),
}  # fmt: skip
"""File names per split. No photograph serves both, so that validation backgrounds are new."""


@cache
def _read_photograph(name: str) -> np.ndarray:
    try:
        path = Path(str(files('skimage'))) / 'data' / name
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'the demo data uses the photographs of scikit-image, which is not installed: '
            'pip install scikit-image'
        ) from None
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing: the installed scikit-image does not carry this photograph '
            '(0.22 to 0.26 do)'
        )
    return np.asarray(Image.open(path).convert('RGB'))[..., ::-1]


def sample_background(split: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts a random square out of a random photograph of a split, with a random exposure and tint.

    Args:
        split: 'train' or 'val'.
        size: side of the result in pixels.
        rng: source of all choices.

    Returns:
        float32 [size, size, 3], BGR in [0, 1].
    """
    image = _read_photograph(PHOTOGRAPHS[split][int(rng.integers(len(PHOTOGRAPHS[split])))])
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(0.4, 1.0))
    top = int(rng.integers(height - side + 1))
    left = int(rng.integers(width - side + 1))
    crop = image[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    crop = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=interpolation)
    gain = rng.uniform(0.75, 1.15) * rng.uniform(0.85, 1.15, size=3)
    return np.clip(crop.astype(np.float32) / 255 * gain.astype(np.float32), 0, 1)
