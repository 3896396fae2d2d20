"""Draws predictions next to ground truth, and training curves."""

import contextlib
import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from nat_mm.analysis.curves import draw_panel
from nat_mm.analysis.training_logs import TrainingLog
from nat_mm.fonts import write_plainly
from nat_mm.inference.drawing import draw_sample, enlarge_sample
from nat_mm.inference.load_model import load_model
from nat_mm.inference.palettes import Color

_ENLARGE = 3


@torch.no_grad()
def draw_predictions(config: Config, checkpoint: Path, output: Path, *, count: int = 8) -> None:
    """Draws validation images with their ground truth and with the predictions of a checkpoint.

    Args:
        config: Config of a detector (mmdet) or a segmentor (mmseg).
        checkpoint: Its trained weights.
        output: PNG file to write.
        count: Number of images, evenly spread over the test dataset.
    """
    with (
        DefaultScope.overwrite_default_scope(config.default_scope),
        contextlib.redirect_stdout(io.StringIO()),  # pycocotools prints while it reads
    ):
        dataset = DATASETS.build(config.test_dataloader.dataset)
    model = load_model(config, checkpoint, device='cpu')
    pairs = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset)), dtype=int):
        sample = model.module.test_step(pseudo_collate([dataset[index]]))[0]
        image = cv2.cvtColor(cv2.imread(sample.img_path), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, None, fx=_ENLARGE, fy=_ENLARGE, interpolation=cv2.INTER_CUBIC)
        draw = partial(
            draw_sample,
            image,
            enlarge_sample(sample, _ENLARGE),
            classes=model.classes,
            palette=model.palette,
            score_threshold=0.5,
            with_labels=model.task == 'detection',
        )
        pairs.append([draw(truth=True), draw()])
    _write_pairs(pairs, dict(zip(model.classes, model.palette, strict=True)), output)


def _write_pairs(pairs: list[list[np.ndarray]], colors: dict[str, Color], output: Path) -> None:
    """Writes the pairs in two columns, with a legend of the classes' colors below."""
    rows = (len(pairs) + 1) // 2
    figure = Figure(figsize=(12, 3.1 * rows + 0.5), layout='constrained')
    grid = figure.subplots(rows, 4, squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    cells = grid.reshape(-1, 2)
    for cell, pair in zip(cells, pairs, strict=False):
        for axes, image, title in zip(cell, pair, ('ground truth', 'prediction'), strict=True):
            axes.imshow(image)
            axes.set_title(title, fontsize=10)
    patches = [Patch(color=np.array(color) / 255) for color in colors.values()]
    legend = figure.legend(patches, colors, loc='outside lower center', ncols=len(colors))
    write_plainly(*legend.get_texts())
    figure.savefig(output, dpi=110)


def draw_curves(curves: dict[str, tuple[TrainingLog, dict[str, str], float]], output: Path) -> None:
    """Draws the loss and the validation metrics of each training run.

    Args:
        curves: By title: the log of the training run, the metrics to draw (key in the log -> name
            in the legend), and the value of a perfect result in the log.
        output: PNG file to write.
    """
    figure = Figure(figsize=(10, 3.4 * len(curves)), layout='constrained')
    rows = figure.subplots(len(curves), 2, squeeze=False)
    for (title, (log, metrics, unit)), (loss_axes, metric_axes) in zip(
        curves.items(), rows, strict=True
    ):
        draw_panel(loss_axes, {'loss': log.curve('loss')}, title=f'{title}: training loss')
        loss_axes.set_yscale('log')
        shares = {}
        for key, name in metrics.items():
            curve = log.curve(key)
            shares[name] = replace(curve, values=[value / unit for value in curve.values])
        draw_panel(metric_axes, shares, title=f'{title}: on validation scenes')
        metric_axes.set_ylim(0, 1)
    figure.savefig(output, dpi=110)
