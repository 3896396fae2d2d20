"""Reports in one line which file failed to load during a run."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import MODELS
from PIL import UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader

from nat_mm.compat.postscript import open_image
from nat_mm.config.datasets import unwrap_dataset
from nat_mm.config.objects import find_class, type_name
from nat_mm.data.class_counts import find_counts
from nat_mm.data.image_headers import find_image_problem, read_header
from nat_mm.data.label_images import find_loader
from nat_mm.data.label_values import ignored_values
from nat_mm.data.sources import is_known
from nat_mm.errors import UserError, describe_error
from nat_mm.inference.images import UnreadableInput, list_paths


class BrokenSampleError(UserError):
    """A sample could not be loaded; the message is one line that names its file.

    From a DataLoader worker, torch passes on only the class of an exception and a text with its
    traceback, and creates the exception anew from these. This class extracts its message from that
    text.

    Args:
        message: What is wrong, or torch's text with the traceback.
    """

    def __init__(self, message: str):
        name = f'{type(self).__module__}.{type(self).__qualname__}: '
        super().__init__(message.rpartition(name)[2].strip())


def name_broken_samples(loader: DataLoader, config: Config, split: str) -> None:
    """Makes the datasets of a loader raise BrokenSampleError for samples that cannot be loaded.

    Samples that a pipeline skips by returning None are still replaced by others.

    Args:
        loader: The data loader; its workers must not have started.
        config: Config of the run.
        split: ``train``, ``val`` or ``test``.
    """
    check = _make_check(config) if split == 'train' else None
    where = f'{config.filename}: cannot load {split} data'
    for dataset in unwrap_dataset(loader.dataset):
        if not isinstance(dataset, BaseDataset):
            continue
        if not isinstance(dataset.prepare_data, _NamingPreparation):
            dataset.prepare_data = _NamingPreparation(dataset, where, check)


@contextmanager
def loading_mistakes(config: Config) -> Iterator[None]:
    """Converts what torch raises when a data loader's worker fails or dies to a UserError.

    Args:
        config: Config of the run inside the ``with`` block.

    Raises:
        UserError: A worker could not load data, was killed or died.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = str(error)
        if re.match(r'Caught \w+ in DataLoader worker process', text):
            # The text contains the worker's whole traceback; its last line is the error.
            reason = text.strip().splitlines()[-1]
            raise UserError(f'{config.filename}: cannot load data: {reason}') from error
        found = re.search(r'DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (.*?)[.\n]', f'{text}\n')
        if not isinstance(error, RuntimeError) or found is None:
            raise
        advice = 'it may have run out of memory: lower num_workers or batch_size of the data loader'
        if 'shared memory' in text:
            advice = (
                'there may be too little shared memory: make /dev/shm larger (docker run '
                '--shm-size), or lower num_workers of the data loader'
            )
        raise UserError(
            f'{config.filename}: a worker that loads data {found[1].strip()}; {advice}'
        ) from error


class _NamingPreparation:
    """Replaces a dataset's ``prepare_data``.

    Args:
        dataset: The dataset.
        where: Prefix of messages that do not name a file.
        check: Describes what is wrong with a loaded sample, if anything.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        where: str,
        check: Callable[[Mapping[str, Any]], str | None] | None,
    ):
        self.dataset = dataset
        self.where = where
        self.check = check

    def __call__(self, index: int) -> Any:
        dataset = self.dataset
        try:
            sample = type(dataset).prepare_data(dataset, index)
        except BrokenSampleError:
            raise
        # The user's pipeline may raise anything on a file that it was not written for.
        except Exception as error:
            raise BrokenSampleError(self._explain(index, error)) from error
        problem = self._find_problem(index, sample) if isinstance(sample, dict) else None
        if problem:
            raise BrokenSampleError(problem)
        return sample

    def _find_problem(self, index: int, sample: Mapping[str, Any]) -> str | None:
        if _has_odd_labels(sample):
            problem = _find_label_problem(self.dataset, self.dataset.get_data_info(index))
            if problem:
                return problem
        problem = self.check(sample) if self.check is not None else None
        if problem:
            info = self.dataset.get_data_info(index)
            problem = f'{info.get("seg_map_path") or info.get("img_path")} {problem}'
        return problem

    def _explain(self, index: int, error: Exception) -> str:
        try:
            info = self.dataset.get_data_info(index)
        except Exception:
            info = {}
        files = list_paths(info, 'img_path', 'img_path2', 'seg_map_path')
        paths = [path for path in files if _is_image(path)]
        for find in (find_image_problem, _find_damage):
            for path in paths:
                problem = find(path)
                if problem:
                    return f'{path} {problem}'
        reason = ' '.join(describe_error(error).split())
        at = f' (loading {paths[0]})' if paths else ''
        return _find_label_problem(self.dataset, info) or f'{self.where}: {reason}{at}'


def _is_image(path: str) -> bool:
    """Whether a path is a local file and not in a format for medical scans or arrays."""
    return '://' not in path and not path.endswith(('.npy', '.npz', '.nii', '.nii.gz', '.pkl'))


def _find_damage(path: str) -> str | None:
    """Describes why an image with a readable header cannot be decoded; None if it can."""
    try:
        with open_image(path) as image:
            image.load()
    except UnidentifiedImageError:
        # In a format that only OpenCV knows.
        return None
    except Exception as error:
        return f'is a damaged image: {error}'
    return None


def _has_odd_labels(sample: Mapping[str, Any]) -> bool:
    """Whether the pixel labels have several channels or a different size than the image."""
    labels = getattr(getattr(sample.get('data_samples'), 'gt_sem_seg', None), 'data', None)
    image = sample.get('inputs')
    if not isinstance(labels, Tensor) or not isinstance(image, Tensor):
        return False
    original = sample['data_samples'].metainfo.get('ori_shape') or ()
    sizes = (tuple(image.shape[-2:]), tuple(original[:2]))
    return labels.ndim != 3 or labels.shape[0] != 1 or tuple(labels.shape[-2:]) not in sizes


def _find_label_problem(dataset: BaseDataset, info: Mapping[str, Any]) -> str | None:
    """Describes a label image with several channels or a different size than its image."""
    # A user's own loader may take colors, or images of another size.
    loader = find_loader(dataset)
    if loader is None or not is_known(type(loader)):
        return None
    try:
        image, label = (read_header(info[name]) for name in ('img_path', 'seg_map_path'))
    except (KeyError, TypeError, UnreadableInput):
        return None
    if label.mode in ('LA', 'RGB', 'RGBA'):
        return (
            f'the label {info["seg_map_path"]} has several channels ({label.mode}), but must have '
            'one of class numbers'
        )
    if (label.width, label.height) in (image.shown_size, (image.width, image.height)):
        return None
    return (
        f'the label {info["seg_map_path"]} is {label.width} x {label.height} pixels, but its image '
        f'{info["img_path"]} is {image.width} x {image.height}'
    )


def _make_check(config: Config) -> Callable[[Mapping[str, Any]], str | None] | None:
    """Creates the function that checks the labels of a sample against the model's classes."""
    if config.default_scope == 'mmseg' and _has_cross_entropy(config):
        # A user's own head may assign the labels to other classes.
        counts = [max(count.value, 2) for count in find_counts(config) if count.is_sure]
        if counts:
            ignored = frozenset(ignored_values(config).values())
            return partial(_check_pixels, classes=min(counts), ignored=ignored)
    if config.default_scope == 'mmpretrain':
        head = config.model.get('head') or {}
        count = head.get('num_classes')
        kind = find_class(MODELS, head, config)
        if type(count) is int and (kind is None or is_known(kind)):
            return partial(_check_image, classes=count)
    return None


def _has_cross_entropy(config: Config) -> bool:
    """Whether the loss of the decoding head picks the channel of each label."""
    head = config.model.get('decode_head') or {}
    losses = head.get('loss_decode', {'type': 'CrossEntropyLoss'}) if isinstance(head, dict) else []
    losses = [losses] if isinstance(losses, dict) else losses
    return any(type_name(loss).endswith('CrossEntropyLoss') for loss in losses)


def _check_pixels(
    sample: Mapping[str, Any], *, classes: int, ignored: frozenset[int]
) -> str | None:
    """Checks label values against the classes; a loss would only say that some label is wrong."""
    labels = getattr(sample.get('data_samples'), 'gt_sem_seg', None)
    if labels is None:
        return None
    is_wrong = labels.data >= classes
    for value in ignored:
        is_wrong &= labels.data != value
    if not is_wrong.any():
        return None
    wrong = labels.data[is_wrong].min().item()
    return (
        f'gives the class {wrong}, but the model has {classes} classes, from 0 to {classes - 1}, '
        f'and ignores {min(ignored)}'
    )


def _check_image(sample: Mapping[str, Any], *, classes: int) -> str | None:
    """Checks the class of an image against the classes of a classifier."""
    label = getattr(sample.get('data_samples'), 'gt_label', None)
    if not isinstance(label, Tensor) or not label.numel():
        return None
    wrong = label[(label >= classes) | (label < 0)].tolist()
    if not wrong:
        return None
    return f'has the class {wrong[0]}, but the model has {classes} classes, from 0 to {classes - 1}'
