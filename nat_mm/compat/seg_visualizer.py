"""mmseg draws into arrays whose memory layout current OpenCV rejects.

mmseg's browse_dataset passes images whose channels are the slowest axis in memory; the visualizer
keeps that layout in the copy that it draws into.
"""

import functools
from types import ModuleType

import numpy as np

# OneDL's fork draws into contiguous arrays since 1.4.
BROKEN_IN = {'mmseg': '<1.4'}
UPSTREAM = 'https://github.com/open-mmlab/mmsegmentation/issues/3405'
MODULES = ('mmseg.visualization.local_visualizer',)


def repair(module: ModuleType) -> None:
    """Makes SegLocalVisualizer draw on images with any memory layout.

    Args:
        module: ``mmseg.visualization.local_visualizer``.
    """
    draw = module.SegLocalVisualizer._draw_sem_seg

    @functools.wraps(draw)
    def draw_on_contiguous(self, image: np.ndarray, *args, **kwargs) -> np.ndarray:
        return draw(self, np.ascontiguousarray(image), *args, **kwargs)

    module.SegLocalVisualizer._draw_sem_seg = draw_on_contiguous
