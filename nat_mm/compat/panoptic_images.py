"""mmdet cannot draw a panoptic prediction without any segments."""

import functools
from types import ModuleType
from typing import Any

import numpy as np

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmdet.visualization.local_visualizer',)


def repair(module: ModuleType) -> None:
    """Makes DetLocalVisualizer leave an image unchanged if every pixel is void.

    Args:
        module: ``mmdet.visualization.local_visualizer``.
    """
    draw = module.DetLocalVisualizer._draw_panoptic_seg

    @functools.wraps(draw)
    def draw_segments(
        self,
        image: np.ndarray,
        panoptic_seg: Any,
        classes: list[str] | None,
        palette: list[tuple[int, int, int]] | None,
    ) -> np.ndarray:
        if (panoptic_seg.sem_seg == len(classes)).all():
            return image
        return draw(self, image, panoptic_seg, classes, palette)

    module.DetLocalVisualizer._draw_panoptic_seg = draw_segments
