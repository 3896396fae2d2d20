"""mmdet cannot draw a panoptic prediction in which no segment was found."""

import functools
from types import ModuleType

import numpy as np
from mmengine.structures import PixelData


def draw_without_segments(module: ModuleType) -> None:
    """Make DetLocalVisualizer leave a picture as it is where every pixel is void.

    Args:
        module: ``mmdet.visualization.local_visualizer``.
    """
    draw = module.DetLocalVisualizer._draw_panoptic_seg

    @functools.wraps(draw)
    def draw_segments(
        self,
        image: np.ndarray,
        panoptic_seg: PixelData,
        classes: list[str] | None,
        palette: list[tuple[int, int, int]] | None,
    ) -> np.ndarray:
        if (panoptic_seg.sem_seg == len(classes)).all():
            return image
        return draw(self, image, panoptic_seg, classes, palette)

    module.DetLocalVisualizer._draw_panoptic_seg = draw_segments
