"""Draws predictions beside ground truth, and training curves."""

import json
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, VISUALIZERS, DefaultScope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement
from torch import Tensor

_ENLARGE = 3


def draw_predictions(config: Config, checkpoint: Path, output: Path, *, count: int = 8) -> None:
    """Draws validation pictures with their ground truth and with the predictions of a checkpoint.

    Args:
        config: config of a detector (mmdet) or a segmentor (mmseg).
        checkpoint: its trained weights.
        output: PNG file to write.
        count: number of pictures, taken evenly from the test data set.
    """
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        model = MODELS.build(config.model).eval()
        load_checkpoint(model, str(checkpoint), map_location='cpu')
        visualizer = VISUALIZERS.build(
            dict(type=config.visualizer.type, name=f'demo {output.stem}')
        )
    visualizer.dataset_meta = dataset.metainfo
    pairs = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset)), dtype=int):
        sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        image = cv2.cvtColor(cv2.imread(sample.img_path), cv2.COLOR_BGR2RGB)
        # Enlarged, since the visualizers' lines and letters have a fixed size.
        image = cv2.resize(
            image, None, fx=_ENLARGE, fy=_ENLARGE, interpolation=cv2.INTER_CUBIC
        )
        visualizer.add_datasample(
            str(index), image, _enlarge(sample), **_drawing_options(config.default_scope)
        )
        pairs.append(visualizer.get_image())
    _write_pairs(pairs, output)


def _drawing_options(scope: str) -> dict:
    if scope == 'mmdet':
        return {'pred_score_thr': 0.5}
    return {'with_labels': False}


def _enlarge(sample: BaseDataElement) -> BaseDataElement:
    """Enlarges boxes, masks and label maps in place."""

    def repeat(maps: Tensor) -> Tensor:
        return maps.repeat_interleave(_ENLARGE, dim=-2).repeat_interleave(_ENLARGE, dim=-1)

    for name in ('gt_instances', 'pred_instances'):
        if name in sample:
            instances = sample.get(name)
            instances.bboxes = instances.bboxes * _ENLARGE
            if isinstance(instances.masks, Tensor):
                instances.masks = repeat(instances.masks)
            else:
                height, width = instances.masks.height, instances.masks.width
                instances.masks = instances.masks.resize((height * _ENLARGE, width * _ENLARGE))
    for name in ('gt_sem_seg', 'pred_sem_seg'):
        if name in sample:
            sample.get(name).data = repeat(sample.get(name).data)
    return sample


def _write_pairs(pairs: list[np.ndarray], output: Path) -> None:
    rows = (len(pairs) + 1) // 2
    figure = Figure(figsize=(12, 3.1 * rows), layout='constrained')
    for axes, pair in zip(figure.subplots(rows, 2, squeeze=False).flat, pairs, strict=False):
        axes.imshow(pair)
        axes.axvline(pair.shape[1] / 2, color='white', linewidth=3)
    for axes in figure.axes:
        axes.axis('off')
        axes.set_title('ground truth' + ' ' * 40 + 'prediction', fontsize=10)
    figure.savefig(output, dpi=110)


def read_scalars(work_dir: Path) -> list[dict]:
    """Reads what mmengine logged during the training in a work directory, oldest first."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def draw_curves(curves: dict[str, tuple[list[dict], dict[str, str]]], output: Path) -> None:
    """Draws the loss and the validation metrics of each training.

    Args:
        curves: by title, the scalars that mmengine logged and the metrics to draw (key in the
            scalars -> name in the legend).
        output: PNG file to write.
    """
    figure = Figure(figsize=(10, 3.4 * len(curves)), layout='constrained')
    rows = figure.subplots(len(curves), 2, squeeze=False)
    for (title, (scalars, metrics)), (loss_axes, metric_axes) in zip(
        curves.items(), rows, strict=True
    ):
        losses = [(entry['iter'], entry['loss']) for entry in scalars if 'loss' in entry]
        loss_axes.plot(*zip(*losses, strict=True))
        loss_axes.set(title=f'{title}: training loss', xlabel='iteration', yscale='log')
        for key, name in metrics.items():
            points = [(entry['step'], entry[key]) for entry in scalars if key in entry]
            if points:
                metric_axes.plot(*zip(*points, strict=True), marker='o', label=name)
        metric_axes.set(title=f'{title}: on validation scenes', xlabel='iteration')
        metric_axes.legend()
        for axes in (loss_axes, metric_axes):
            axes.grid(alpha=0.3)
    figure.savefig(output, dpi=110)
