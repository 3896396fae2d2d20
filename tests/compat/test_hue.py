"""Tests that hues are shifted in both directions."""

import subprocess
import sys

import mmcv
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize(('hue', 'expected'), [(-1 / 3, BLUE), (0.0, RED), (1 / 3, GREEN)])
def test_hue_is_shifted(hue, expected, backend):
    image = np.full((2, 2, 3), RED, np.uint8)
    shifted = mmcv.adjust_hue(image, hue, backend=backend)
    assert shifted.dtype == image.dtype
    assert np.abs(shifted.astype(int) - expected).max() <= 6


def test_factor_is_checked():
    with pytest.raises(ValueError, match='-0.6'):
        mmcv.adjust_hue(np.zeros((2, 2, 3), np.uint8), -0.6)


def test_color_jitter():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        jitter = TRANSFORMS.build({'type': 'ColorJitter', 'hue': 0.5})
    np.random.seed(0)
    images = [jitter({'img': np.full((2, 2, 3), RED, np.uint8)})['img'] for _ in range(20)]
    assert len({tuple(image[0, 0]) for image in images}) > 10


def test_mmcv_that_is_imported_first():
    """As in OpenMMLab's own commands."""
    turn = 'mmcv.adjust_hue(numpy.zeros((1, 1, 3), numpy.uint8), -0.1)'
    code = f'import numpy, mmcv, nat_mm; {turn}'
    subprocess.run([sys.executable, '-c', code], check=True)
