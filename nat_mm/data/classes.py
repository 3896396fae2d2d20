"""Finds what is wrong with the classes of a classifier and of its images."""

from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

WITH_FOLDERS = ('CustomDataset', 'ImageNet', 'ImageNet21k')


def find_folder_problem(dataset: dict) -> str | None:
    """Looks at the folders of one of mmpretrain's datasets that have one for each class.

    Args:
        dataset: Config of the dataset.

    Returns:
        What is wrong, or None, also if the dataset is of another kind.
    """
    kind = dataset.get('type', '')
    kind = getattr(kind, '__name__', kind).removeprefix('mmpretrain.')
    if kind not in WITH_FOLDERS or dataset.get('ann_file'):
        return None
    folder = _folder(dataset)
    if not folder.is_dir():
        return f'the folder of {kind} does not exist: {folder.absolute()}'
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        return f'{folder.absolute()} has no folders with images, one for each class'
    classes = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    if classes is None:
        classes = DATASETS.get(f'mmpretrain.{kind}').METAINFO.get('classes')
    if classes is not None and not isinstance(classes, str) and len(classes) != len(names):
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        return (
            f'{folder.absolute()} has folders of {len(names)} classes ({shown}), but {kind} '
            f'expects {len(classes)}: set metainfo.classes, or type=CustomDataset for any classes'
        )
    return None


def find_class_count_problem(config: Config, dataset: BaseDataset, part: str) -> str | None:
    """Compares the numbers of classes that a classifier's config names in several places.

    Args:
        config: Config of the run, of any framework.
        dataset: One of its datasets, built.
        part: ``train``, ``val`` or ``test``, for the message.

    Returns:
        What is wrong, or None, also if the model is no classifier.
    """
    model = config.model
    head = model.get('head') or {}
    if config.default_scope != 'mmpretrain' or 'num_classes' not in head:
        return None
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    if len(classes) > head.num_classes:
        return (
            f'the {part} dataset has {len(classes)} classes, but model.head.num_classes is '
            f'{head.num_classes}'
        )
    preprocessor = model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    prepared = preprocessor.get('num_classes')
    mixes = (model.get('train_cfg') or {}).get('augments')
    if part == 'train' and mixes and prepared != head.num_classes:
        return (
            f'data_preprocessor.num_classes is {prepared}, but model.head.num_classes is '
            f'{head.num_classes}: both must be the same, as images are mixed (train_cfg.augments)'
        )
    return None


def _folder(dataset: dict) -> Path:
    prefix = dataset.get('data_prefix') or ''
    if not isinstance(prefix, str):
        prefix = prefix.get('img_path', '')
    return Path(dataset.get('data_root') or '', prefix or dataset.get('split') or '')
