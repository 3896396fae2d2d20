"""Panoptic PNG files, which store segment numbers in the three channels of each pixel."""

import numpy as np


def rgb2id(color: np.ndarray) -> np.ndarray:
    """Read the segment numbers from an image.

    Args:
        color: Image [..., 3], RGB, integers from 0 to 255.

    Returns:
        ``red + 256 * green + 256**2 * blue`` [...]; int32 for a uint8 image.
    """
    if color.dtype == np.uint8:
        color = color.astype(np.int32)
    return color[..., 0] + 256 * color[..., 1] + 256 * 256 * color[..., 2]


def id2rgb(id_map: np.ndarray) -> np.ndarray:
    """Write segment numbers as an image.

    Args:
        id_map: Integers [...], each from 0 to 256**3 - 1.

    Returns:
        The image [..., 3], RGB, uint8.
    """
    return np.stack([id_map // 256**power % 256 for power in range(3)], axis=-1).astype(np.uint8)
