"""Summarizes datasets in numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from mmengine.dataset import BaseDataset

from nat_mm.data.coco_file import CocoFile
from nat_mm.data.sources import DataSource

SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels below which COCO calls an object small and medium, respectively."""


@dataclass(frozen=True)
class Summary:
    """The content of a dataset in numbers.

    Attributes:
        title: Which dataset it is.
        facts: Numbers for the whole dataset, by what they count.
        classes: For each class, numbers by what they count.
        distributions: Values for histograms, by what they measure.
    """

    title: str
    facts: Mapping[str, str]
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    distributions: Mapping[str, np.ndarray] = field(default_factory=dict)


def summarize_coco(coco: CocoFile, title: str, classes: Sequence[str]) -> Summary:
    """Counts the images and annotations in a file, by category.

    Args:
        coco: The file.
        title: Which dataset it is.
        classes: Names of the dataset's classes; categories that are not among them are marked.
    """
    names = coco.category_names
    known = coco.categories >= 0
    indices, images = coco.categories[known], coco.images[known]
    areas = np.where(np.isnan(coco.areas), coco.boxes[:, 2] * coco.boxes[:, 3], coco.areas)[known]
    counts = {}
    for index, name in enumerate(names):
        of_class = indices == index
        sizes = areas[of_class]
        small, medium = int((sizes < SMALL).sum()), int((sizes < MEDIUM).sum())
        label = name if name in classes else f'({name}: not in classes)'
        counts[label] = {
            'images': len(np.unique(images[of_class])),
            'instances': len(sizes),
            'small': small,
            'medium': medium - small,
            'large': len(sizes) - medium,
        }
    filled = np.unique(coco.images[coco.in_classes(classes)])
    total = len(coco.image_ids)
    facts = {
        'images': f'{total}',
        'without annotations of these classes': f'{total - int((filled >= 0).sum())}',
        'annotations': f'{len(coco.images)}',
        'crowds': f'{int(coco.crowds.sum())}',
    }
    if total:
        facts |= {
            'longest side': _describe(coco.image_sizes.max(axis=1)),
            'shortest side': _describe(coco.image_sizes.min(axis=1)),
        }
    distributions = {
        'side of an instance (square root of its area, pixels)': np.sqrt(areas.clip(0)),
        'longest side of an image (pixels)': coco.image_sizes.max(axis=1, initial=0),
    }
    return Summary(title, facts, counts, distributions)


def summarize_samples(source: DataSource, title: str) -> Summary:
    """Loads a dataset of any kind and counts its images, per class if they have one or several.

    Args:
        source: The dataset.
        title: Which dataset it is.
    """
    dataset = source.dataset
    dataset.full_init()
    counts = _count_classes(dataset) if hasattr(dataset, 'get_gt_labels') else {}
    return Summary(title, {'images': f'{len(dataset)}'}, counts)


def _count_classes(dataset: BaseDataset) -> dict[str, dict[str, int]]:
    """Counts the images of each class; those of several classes in each of them."""
    names = dataset.metainfo.get('classes') or ()
    labels = [dataset.get_data_info(index).get('gt_label') for index in range(len(dataset))]
    if not names and any(np.ndim(each) for each in labels):
        return {}  # numbers of images to be retrieved
    # Test data have no labels, and those for several tasks have a dict.
    every = [
        number
        for each in labels
        if not isinstance(each, dict | None)
        for number in (each if np.iterable(each) else (each,))
    ]
    numbers = np.bincount(np.array(every, int), minlength=len(names)).tolist()
    return {
        names[index] if index < len(names) else str(index): {'images': number}
        for index, number in enumerate(numbers)
    }


def _describe(values: np.ndarray) -> str:
    return f'{values.min():g} to {values.max():g}, median {np.median(values):g}'
