"""mmcv shifts hues by numbers that wrap around at 256, which NumPy 2 refuses if they are negative.

mmpretrain's ColorJitter draws negative ones for half of the images, if it has ``hue``.
"""

import functools
from types import ModuleType

import numpy as np

BROKEN_IN = {'mmcv': '<2.3', 'numpy': '>=2'}
UPSTREAM = 'https://github.com/VBTI-development/onedl-mmcv/pull/41'
MODULES = ('mmcv.image.photometric', 'mmcv.image', 'mmcv')


class _HueFactor(float):
    """A share of the color circle that scales to a whole number of at least 0."""

    def __mul__(self, steps: int) -> int:
        return int(float(self) * steps) % 256


def repair(module: ModuleType) -> None:
    """Lets adjust_hue shift hues in both directions.

    Args:
        module: ``mmcv.image.photometric``, or a package that has its function from it.
    """
    adjust = module.adjust_hue
    if hasattr(adjust, '__wrapped__'):  # the package got it after its repair
        return

    @functools.wraps(adjust)
    def adjust_hue(img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
        return adjust(img, _HueFactor(hue_factor), backend)

    module.adjust_hue = adjust_hue
