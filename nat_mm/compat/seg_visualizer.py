"""mmseg draws into arrays whose layout current OpenCV refuses.

mmseg's browse_dataset hands over images whose channels are the slowest axis in memory; the
visualizer copies that layout for the image it draws into.
"""

import functools
from types import ModuleType

import numpy as np

# OneDL's fork draws into contiguous arrays since 1.4.
BROKEN_IN = {'mmseg': '<1.4'}
UPSTREAM = 'https://github.com/open-mmlab/mmsegmentation/issues/3405'
MODULES = ('mmseg.visualization.local_visualizer',)


def repair(module: ModuleType) -> None:
    """Makes SegLocalVisualizer draw on images of any memory layout.

    Args:
        module: ``mmseg.visualization.local_visualizer``.
    """
    draw = module.SegLocalVisualizer._draw_sem_seg

    @functools.wraps(draw)
    def draw_on_contiguous(self, image: np.ndarray, *args, **kwargs) -> np.ndarray:
        return draw(self, np.ascontiguousarray(image), *args, **kwargs)

    module.SegLocalVisualizer._draw_sem_seg = draw_on_contiguous
