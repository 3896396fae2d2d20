"""Finds what is wrong with the folders from which a classifier's pictures get their classes."""

from pathlib import Path

from mmengine.registry import DATASETS

WITH_FOLDERS = ('CustomDataset', 'ImageNet', 'ImageNet21k')


def find_folder_problem(dataset: dict) -> str | None:
    """Looks at the folders of one of mmpretrain's data sets that have one for each class.

    Args:
        dataset: Config of the data set.

    Returns:
        What is wrong, or None, also if the data set is of another kind.
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
        return f'{folder.absolute()} has no folders with pictures, one for each class'
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


def _folder(dataset: dict) -> Path:
    prefix = dataset.get('data_prefix') or ''
    if not isinstance(prefix, str):
        prefix = prefix.get('img_path', '')
    return Path(dataset.get('data_root') or '', prefix or dataset.get('split') or '')
