"""mmseg draws into arrays whose layout current OpenCV refuses.

mmseg's browse_dataset hands over images whose channels are the slowest axis in memory; the
visualizer copies that layout for the picture it draws into.
"""

import functools
from types import ModuleType

import numpy as np


def accept_transposed_images(module: ModuleType) -> None:
    """Make SegLocalVisualizer draw on images of any memory layout.

    Args:
        module: ``mmseg.visualization.local_visualizer``.
    """
    draw = module.SegLocalVisualizer._draw_sem_seg

    @functools.wraps(draw)
    def draw_on_contiguous(self, image: np.ndarray, *args, **kwargs) -> np.ndarray:
        return draw(self, np.ascontiguousarray(image), *args, **kwargs)

    module.SegLocalVisualizer._draw_sem_seg = draw_on_contiguous
