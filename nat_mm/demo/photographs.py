"""Samples backgrounds from the photographs in scikit-image's wheel, without any download."""

from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

PHOTOGRAPHS = (
    'astronaut.png', 'brick.png', 'camera.png', 'chelsea.png', 'coffee.png', 'coins.png',
    'grass.png', 'gravel.png', 'hubble_deep_field.jpg', 'ihc.png', 'moon.png',
    'motorcycle_left.png', 'page.png', 'rocket.jpg', 'text.png',
)  # fmt: skip
"""File names of the photographs."""

SHARES = {'train': (0.0, 0.6), 'val': (0.6, 1.0)}
"""Part of every photograph's width that each split uses: no pixel is used by both."""


GAINS = ((0.75, 1.15), (0.85, 1.15))
"""Ranges of the random factors for a whole background and for each of its color channels."""


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
    """Cuts a random square out of a split's part of a random photograph; exposure and tint vary.

    Args:
        split: 'train' or 'val'.
        size: Side of the result in pixels.
        rng: Source of randomness.

    Returns:
        float32 [size, size, 3], BGR in [0, 1].
    """
    image = _read_photograph(PHOTOGRAPHS[int(rng.integers(len(PHOTOGRAPHS)))])
    left, right = (round(share * image.shape[1]) for share in SHARES[split])
    image = image[:, left:right]
    height, width = image.shape[:2]
    side = int(min(height, width) * rng.uniform(0.4, 1.0))
    top = int(rng.integers(height - side + 1))
    left = int(rng.integers(width - side + 1))
    crop = image[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    crop = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=interpolation)
    gain = rng.uniform(*GAINS[0]) * rng.uniform(*GAINS[1], size=3)
    return np.clip(crop.astype(np.float32) / 255 * gain.astype(np.float32), 0, 1)
