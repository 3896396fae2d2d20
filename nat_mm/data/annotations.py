"""Finds what is wrong with the data that a config names."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from nat_mm.data.classes import find_folder_problem

INSTANCE_LISTS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
PANOPTIC_LISTS = {
    'images': INSTANCE_LISTS['images'],
    'annotations': ('image_id', 'file_name', 'segments_info'),
    'categories': (*INSTANCE_LISTS['categories'], 'isthing'),
}
# What reads the annotation files that can be checked here.
LISTS_OF_DATASET = {'CocoDataset': INSTANCE_LISTS, 'CocoPanopticDataset': PANOPTIC_LISTS}
LISTS_OF_METRIC = {'CocoMetric': INSTANCE_LISTS, 'CocoPanopticMetric': PANOPTIC_LISTS}


def find_missing_path(loader: ConfigDict) -> str | None:
    """Looks for the folders and the annotation files of a data loader.

    Args:
        loader: Config of the data loader.

    Returns:
        What is missing, or None.
    """
    for dataset in _datasets(loader.get('dataset')):
        for name, path in _local_paths(dataset).items():
            if not os.path.exists(path):
                return (
                    f'{name} of the dataset does not exist: {os.path.abspath(path)} '
                    f'(data_root is {dataset.get("data_root")!r})'
                )
    return None


def find_annotation_problem(config: Config, part: str) -> str | None:
    """Reads the annotations of one part of the data and looks for mistakes.

    Read are COCO's files, and the folders that tell the classes of a classifier's images.

    Args:
        config: Config of the run.
        part: ``train``, ``val`` or ``test``.

    Returns:
        What is wrong, or None.
    """
    for dataset in _datasets(config[f'{part}_dataloader'].get('dataset')):
        path = _local_paths(dataset).get('ann_file')
        kind = _type_name(dataset)
        if kind is None:
            return f'the {part} dataset has no type, such as CocoDataset'
        if path and kind in LISTS_OF_DATASET:
            classes = (dataset.get('metainfo') or {}).get('classes')
            classes = classes or DATASETS.get(f'mmdet.{kind}').METAINFO['classes']
            problem = _find_coco_problem(path, LISTS_OF_DATASET[kind])
            problem = problem or _find_foreign_classes(path, classes)
            if problem:
                return problem
        problem = find_folder_problem(dataset)
        if problem:
            return problem
    evaluators = config.get(f'{part}_evaluator') or []
    for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
        if _type_name(evaluator) is None:
            return f'{part}_evaluator has no type, such as CocoMetric'
        path = evaluator.get('ann_file')
        if path and '://' not in path:
            if not os.path.isfile(path):
                return f'{part}_evaluator.ann_file does not exist: {os.path.abspath(path)}'
            lists = LISTS_OF_METRIC.get(_type_name(evaluator))
            problem = lists and _find_coco_problem(path, lists)
            if problem:
                return problem
    return None


def finds_no_images(config: Config, part: str) -> bool:
    """Whether a dataset of one part of the data has no image that it would keep.

    Read are COCO's files, lists of images, and the folders of those that have neither.

    Args:
        config: Config of the run.
        part: ``train``, ``val`` or ``test``.
    """
    return any(map(_has_no_images, _datasets(config[f'{part}_dataloader'].get('dataset'))))


def _has_no_images(dataset: dict) -> bool:
    paths = _local_paths(dataset)
    ann_file = paths.pop('ann_file', None)
    if ann_file and _type_name(dataset) in LISTS_OF_DATASET:
        with open(ann_file, encoding='utf-8') as file:
            content = json.load(file)
        if dataset.get('test_mode') or not (dataset.get('filter_cfg') or {}).get('filter_empty_gt'):
            return not content['images']
        classes = (dataset.get('metainfo') or {}).get('classes')
        named = [each for each in content['categories'] if not classes or each['name'] in classes]
        wanted = {each['id'] for each in named}
        annotations = content['annotations']
        if _type_name(dataset) == 'CocoPanopticDataset':
            annotations = [each for image in annotations for each in image['segments_info']]
        return not any(each['category_id'] in wanted for each in annotations)
    if ann_file and os.path.isfile(ann_file):
        with open(ann_file, encoding='utf-8') as file:
            return not any(line.strip() for line in file)
    return any(not any(files for *_, files in os.walk(path)) for path in paths.values())


def find_missing_file(dataset: BaseDataset, part: str) -> str | None:
    """Looks for the files of the first image of a built dataset.

    Args:
        dataset: The dataset; it has images.
        part: ``train``, ``val`` or ``test``, for the message.

    Returns:
        What is missing, or None.
    """
    if not hasattr(dataset, 'get_data_info'):
        return None
    first = dataset.get_data_info(0)
    for name in ('img_path', 'seg_map_path'):
        path = first.get(name)
        if path and '://' not in path and not os.path.isfile(path):
            return f'a file of the {part} dataset does not exist: {os.path.abspath(path)}'
    return None


def describe_empty(part: str) -> str:
    """The message for a dataset without images.

    Args:
        part: ``train``, ``val`` or ``test``.

    Returns:
        The message.
    """
    return f'the {part} dataset has no image with annotations of its classes'


def _datasets(dataset: Any) -> Iterator[dict]:
    """The configs of the datasets that read files, inside of wrappers such as RepeatDataset."""
    if not isinstance(dataset, dict):
        return
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner is None:
        yield dataset
        return
    for child in [inner] if isinstance(inner, dict) else inner:
        yield from _datasets(child)


def _type_name(config: dict) -> str | None:
    """The type without scope; in mmengine's newer configs it is the class itself."""
    kind = config.get('type')
    return None if kind is None else getattr(kind, '__name__', str(kind)).removeprefix('mmdet.')


def _local_paths(dataset: dict) -> dict[str, str]:
    """The files and folders that a dataset config names, joined to its data_root."""
    named = {'ann_file': dataset.get('ann_file')}
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):
        named['data_prefix'] = prefix
    else:
        named |= {f'data_prefix.{key}': path for key, path in prefix.items()}
    root = dataset.get('data_root') or ''
    joined = {name: os.path.join(root, path) for name, path in named.items() if path}
    return {name: path for name, path in joined.items() if '://' not in path}


def _find_coco_problem(path: str, lists: dict[str, Sequence[str]]) -> str | None:
    where = f'annotation file {os.path.abspath(path)}'
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (ValueError, OSError) as error:
        return f'{where} is not JSON: {error}'
    if not isinstance(content, dict):
        return f'{where} is not COCO: it holds a {type(content).__name__}, not an object'
    for name, keys in lists.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            return f'{where} is not COCO: it has no list {name!r}'
        for entry in entries:
            if not isinstance(entry, dict):
                return f'{where} is not COCO: an entry of {name!r} is {entry!r}, not an object'
            absent = [key for key in keys if key not in entry]
            if absent:
                return f'{where} is not COCO: an entry of {name!r} has no {", ".join(absent)}'
    return None


def _find_foreign_classes(path: str, classes: Sequence[str]) -> str | None:
    with open(path, encoding='utf-8') as file:
        found = [category['name'] for category in json.load(file)['categories']]
    if set(classes) & set(found):
        return None
    return (
        f'annotation file {os.path.abspath(path)} has the categories {found[:5]}, but the classes '
        f'of the config are {list(classes)[:5]}: set metainfo.classes of the dataset'
    )
