"""Writes a model's predictions as label images and drawings during a test."""

import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info
from mmengine.fileio import dump
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import METRICS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from nat_mm.config.datasets import unwrap_dataset
from nat_mm.errors import UserError
from nat_mm.files import whole_file
from nat_mm.inference.images import IMAGE_SUFFIXES, check_not_overwritten, list_paths, to_drawing
from nat_mm.inference.loading import ImageLoader
from nat_mm.inference.result_files import write_labels


class ImageNames:
    """Names files after the images of a dataset so that no two get the same name.

    Each file gets the path of its image relative to the dataset's image folder, or else its root.

    Args:
        dataset: The dataset; wrappers are replaced by the datasets inside.
        folder: Folder for the files.
    """

    def __init__(self, dataset: Any, folder: Path) -> None:
        self._folder = folder
        self._images: dict[Path, str] = {}
        folders = {
            os.path.abspath(folder)
            for each in unwrap_dataset(dataset)
            for folder in _image_folders(each)
            if isinstance(folder, str) and '://' not in folder
        }
        self._root = os.path.commonpath(folders) if folders else None

    def path(self, image: str, suffix: str | None = None) -> Path:
        """Returns the path of the file for an image.

        Args:
            image: Path of the image.
            suffix: Suffix of the file; None keeps that of the image.
        """
        place = re.sub(r'^[a-zA-Z][a-zA-Z0-9+.-]+://', '', image)
        if place == image:
            place = os.path.abspath(image)
            if self._root is not None and place.startswith(os.path.join(self._root, '')):
                place = os.path.relpath(place, self._root)
        parts = [part for part in Path(os.path.normpath(place)).parts if part != '..']
        relative = Path(*parts[1:] if os.path.isabs(place) else parts)
        path = self._folder / (relative if suffix is None else relative.with_suffix(suffix))
        name = relative
        while self._images.setdefault(path, image) != image:  # a.jpg after a.png
            name = Path(f'{name}{suffix or relative.suffix}')
            path = self._folder / name
        return path


def _image_folders(dataset: Any) -> list[Any]:
    """Returns the image folders of a dataset, or its root, since VOCDataset names no folder."""
    prefixes = getattr(dataset, 'data_prefix', None) or {}
    folders = [prefix for name, prefix in prefixes.items() if name in ('img', 'img_path')]
    root = getattr(dataset, 'data_root', None)
    return folders or ([root] if root else [])


def _check_data_are_kept(sample: BaseDataElement, file: Path) -> None:
    """Raises UserError if a file for a sample would be among the images or labels of the data."""
    data = list_paths(sample, 'img_path', 'seg_map_path')
    check_not_overwritten(map(Path, data), [file.parent])


class LabelImageHook(Hook):
    """Writes a segmentor's predictions as label images, numbered like the ground truth.

    Args:
        folder: Folder for the label images.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_loop.dataloader.dataset
        self._names = ImageNames(dataset, self._folder)
        self._first = int(
            any(getattr(each, 'reduce_zero_label', False) for each in unwrap_dataset(dataset))
        )
        self._classes = len(runner.test_loop.evaluator.dataset_meta['classes'])

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        for sample in outputs or ():
            if 'pred_sem_seg' not in sample:
                raise UserError('--out writes label maps, but the model predicts none')
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            path = self._names.path(list_paths(sample, 'img_path')[0], '.png')
            _check_data_are_kept(sample, path)
            write_labels(path, labels, classes=self._classes, first=self._first)


class PredictionsHook(Hook):
    """Writes the predictions of a detector or classifier to a pickle file.

    The toolboxes add a metric for that to the evaluator, which is no list of metrics if it is
    mmdet's ``MultiDatasetsEvaluator``.

    Args:
        kind: Type of that metric.
        file: The file; it ends with .pkl or .pickle.
    """

    def __init__(self, kind: str, file: Path) -> None:
        self._kind = kind
        self._file = file

    def before_test(self, runner: Runner) -> None:
        self._metric = METRICS.build(dict(type=self._kind, out_file_path=str(self._file)))
        self._metric.compute_metrics = self._write

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        self._metric.process(data_batch, [sample.to_dict() for sample in outputs or ()])

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._metric.evaluate(len(runner.test_loop.dataloader.dataset))

    def _write(self, predictions: list[dict]) -> dict[str, float]:
        """Writes those of all processes; called in the main process only."""
        with whole_file(self._file) as unfinished:
            dump(predictions, unfinished)
        print_log(f'Predictions are saved in {self._file}', logger='current')
        return {}


class DrawingHook(Hook):
    """Draws a model's predictions over the images, next to the ground truth.

    The images are loaded as in the config's test pipeline. The toolboxes' own hooks, in contrast,
    decode each image as a photograph, and give the drawings of ``a/1.jpg`` and ``b/1.jpg`` the same
    name.

    Args:
        folder: Folder for the drawings; None writes none.
        show: Whether to show each in a window.
        wait_time: Seconds for which each is shown.
        score_threshold: Lowest score of the objects that are drawn.
    """

    def __init__(
        self,
        folder: str | Path | None,
        *,
        show: bool,
        wait_time: float,
        score_threshold: float,
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        self._score_threshold = score_threshold
        self._options = {'show': show, 'wait_time': wait_time}

    def before_test(self, runner: Runner) -> None:
        self._loader = ImageLoader(runner.cfg)
        folder = self._folder or Path(runner.work_dir)
        self._names = ImageNames(runner.test_loop.dataloader.dataset, folder)
        self._count = 0
        if self._folder is None:
            # Otherwise its backends would save what is shown.
            runner.visualizer._vis_backends = {}

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        rank, processes = get_dist_info()
        for index, sample in enumerate(outputs or ()):
            paths = list_paths(sample, 'img_path')
            if paths:
                image = self._loader.load_source(sample.img_path).drawing
                name = paths[0]
            else:  # from a dataset without image files
                image = to_drawing(data_batch['inputs'][index].permute(1, 2, 0).cpu().numpy())
                name = f'{self._count * processes + rank}.png'
            self._draw(runner, image[..., ::-1].copy(), sample, name)
            self._count += 1

    def _draw(self, runner: Runner, image: np.ndarray, sample: BaseDataElement, path: str) -> None:
        scope = runner.cfg.default_scope
        keeps_suffix = scope == 'mmdet' and Path(path).suffix.lower() in IMAGE_SUFFIXES
        file = self._names.path(path, None if keeps_suffix else '.png')
        options = {**self._options, 'name': file.name}
        if scope == 'mmdet':
            options['pred_score_thr'] = self._score_threshold
        if self._folder is not None:
            _check_data_are_kept(sample, file)
        # Custom visualizers may draw elsewhere, and most of them only in the main process.
        writing = nullcontext() if self._folder is None else whole_file(file, optional=True)
        with writing as unfinished:
            options['out_file'] = unfinished and str(unfinished)
            if scope == 'mmpretrain':
                runner.visualizer.visualize_cls(image, sample, **options)
            else:
                runner.visualizer.add_datasample(image=image, data_sample=sample, **options)
