"""Finds palettes that do not fit the classes, with which drawing would fail."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from nat_mm.config.datasets import SPLITS, walk_datasets
from nat_mm.config.objects import find_class
from nat_mm.data.findings import Finding
from nat_mm.errors import shorten
from nat_mm.inference.palettes import Color, complete_palette, is_color


def find_palette_problems(config: Config) -> Iterator[Finding]:
    """Finds classes without a color and invalid colors.

    Args:
        config: Config of the run.

    Yields:
        Warnings only, because `complete_palettes` makes the palettes fit.
    """
    places = {}
    for place, dataset in _find_datasets(config):
        if find_full_palette(config, dataset) is None:
            continue
        palette, count = _known(config, dataset, 'palette'), len(_known(config, dataset, 'classes'))
        wrong = [each for each in palette if not is_color(each)]
        if wrong:
            problem = f'has {shorten(wrong, 3)}, but a color is [red, green, blue] from 0 to 255'
        elif len(palette) != count:
            problem = f'has {len(palette)} color(s) for {count} classes'
        else:
            continue
        # Several datasets often share a palette.
        places.setdefault(problem, place)
    for problem, place in places.items():
        yield Finding(
            f'{place}.metainfo.palette {problem}; missing colors are generated', is_error=False
        )


def complete_palettes(config: Config) -> None:
    """Gives every class of every dataset a color, so that mmdet and mmseg can draw it.

    Args:
        config: Config of the run, modified in place.
    """
    for _, dataset in _find_datasets(config):
        palette = find_full_palette(config, dataset)
        if palette is not None:
            dataset['metainfo'] = {**(dataset.get('metainfo') or {}), 'palette': palette}


def find_full_palette(config: Config, dataset: dict[str, Any]) -> list[Color] | None:
    """Completes a dataset's palette with generated colors.

    Args:
        config: Config of the run.
        dataset: Config of one of its datasets.

    Returns:
        A color for each class; None if the toolbox can draw with the palette as it is.
    """
    classes = _known(config, dataset, 'classes')
    palette = _known(config, dataset, 'palette')
    is_list = isinstance(classes, list | tuple) and isinstance(palette, list | tuple)
    if config.get('default_scope') not in ('mmdet', 'mmseg') or not is_list:
        return None
    count = len(palette)
    if config.default_scope == 'mmdet':
        if isinstance(palette, tuple) and is_color(palette):
            # One color for all classes.
            return None
        is_right = isinstance(palette, list) and count >= len(classes)
    else:
        # mmseg generates a missing palette. A palette for all classes of the dataset's type is also
        # right for a subset of them.
        is_subset = _of_type(config, dataset, 'classes') is not None
        is_right = count in (0, len(classes)) or (is_subset and count > len(classes))
    if is_right and all(map(is_color, palette)):
        return None
    return complete_palette(palette, len(classes))


def _find_datasets(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    for split in SPLITS:
        yield from walk_datasets(config, split)


def _known(config: Config, dataset: dict[str, Any], name: str) -> Any:
    """Looks up metainfo in a dataset's config or else in its type."""
    metainfo = dataset.get('metainfo')
    if isinstance(metainfo, dict) and metainfo.get(name) is not None:
        return metainfo[name]
    return _of_type(config, dataset, name)


def _of_type(config: Config, dataset: dict[str, Any], name: str) -> Any:
    return getattr(find_class(DATASETS, dataset, config), 'METAINFO', {}).get(name)
