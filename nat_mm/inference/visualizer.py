"""Makes runs of mmdet and mmseg draw results in the same style as predictions."""

from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from nat_mm.config.objects import type_name
from nat_mm.inference.drawing import OPACITY, SCORE_THRESHOLD, classes_of_dataset, draw_sample

REPLACED = ('DetLocalVisualizer', 'SegLocalVisualizer')
"""Visualizers whose ``add_datasample`` has the same arguments."""

_KEPT_SETTINGS = ('name', 'vis_backends', 'save_dir')


@VISUALIZERS.register_module()
class ResultVisualizer(Visualizer):
    """Replaces mmdet's ``DetLocalVisualizer`` and mmseg's ``SegLocalVisualizer``.

    Args:
        name: Name of the instance.
        opacity: Opacity of masks, segments and label maps, from 0 to 1.
        **options: Arguments of mmengine's ``Visualizer``.
    """

    def __init__(
        self, name: str = 'visualizer', *, opacity: float = OPACITY, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self.opacity = opacity

    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: BaseDataElement | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = SCORE_THRESHOLD,
        step: int = 0,
    ) -> None:
        """Draws the ground truth and the prediction side by side, if the sample has them.

        Each process writes its files, while only the main process shows drawings or passes them on.

        Args:
            name: Name of the image.
            image: [height, width, 3], uint8, RGB.
            data_sample: Its prediction and ground truth.
            draw_gt: Whether to draw the ground truth.
            draw_pred: Whether to draw the prediction.
            show: Whether to show the drawing in a window instead of writing it.
            wait_time: Seconds for which it is shown.
            out_file: File to write; None writes to the visualizer's backends.
            pred_score_thr: Lowest score of the objects that are drawn.
            step: Step number, for the backends.
        """
        drawn = [image]
        if data_sample is not None:
            parts = list(data_sample.items())
            kinds = [kind for kind, wanted in (('gt', draw_gt), ('pred', draw_pred)) if wanted]
            classes, palette = classes_of_dataset(self.dataset_meta or {})
            drawn = [
                draw_sample(
                    image,
                    data_sample.cpu(),
                    classes=classes,
                    palette=palette,
                    truth=kind == 'gt',
                    score_threshold=pred_score_thr,
                    opacity=self.opacity,
                )
                for kind in kinds
                if any(key.startswith(f'{kind}_') and _holds_data(value) for key, value in parts)
            ] or drawn
        side_by_side = np.concatenate(drawn, axis=1)
        self.set_image(side_by_side)
        if show:
            self.show(side_by_side, win_name=name, wait_time=wait_time)
        elif out_file is not None:
            mmcv.imwrite(side_by_side[..., ::-1], out_file)
        else:
            self.add_image(name, side_by_side, step)


def _holds_data(part: Any) -> bool:
    """Whether a part of a sample has any fields; mmdet packs empty ones if it loads no truth."""
    return not isinstance(part, BaseDataElement) or bool(part.keys())


def replace_visualizer(config: Config, *, opacity: float) -> None:
    """Makes a config use `ResultVisualizer`, unless it has a custom visualizer.

    Args:
        config: Config of a detector or segmentor.
        opacity: Opacity of masks, segments and label maps.
    """
    settings = config.get('visualizer') or {}
    if type_name(settings, REPLACED[0]) in REPLACED:
        kept = {name: settings[name] for name in _KEPT_SETTINGS if name in settings}
        config.visualizer = dict(type='ResultVisualizer', opacity=opacity, **kept)
