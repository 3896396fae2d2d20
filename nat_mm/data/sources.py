"""Finds the datasets that a config names, before they load anything."""

import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import Dataset

from nat_mm.config.building import BadArgumentError
from nat_mm.config.datasets import find_inner
from nat_mm.config.objects import find_class, type_name
from nat_mm.config.reading import config_mistakes
from nat_mm.data.palettes import find_full_palette
from nat_mm.errors import UserError, brief

_KNOWN_PACKAGES = ('mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'nat_mm')


@dataclass(frozen=True)
class DataSource:
    """A dataset that reads files.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        place: Its key in the config, such as ``train_dataloader.dataset.dataset``.
        config: Config of the dataset.
        dataset: The dataset, built but not loaded: it has its class, ``metainfo``, joined
            ``ann_file`` and ``data_prefix``, and ``pipeline``.
    """

    split: str
    place: str
    config: ConfigDict
    dataset: BaseDataset

    @property
    def transforms(self) -> list[Any]:
        """The transforms of the pipeline, in order."""
        return list(getattr(getattr(self.dataset, 'pipeline', None), 'transforms', ()))

    @property
    def image_loader(self) -> LoadImageFromFile | None:
        """The transform that loads images; None for a user's own, which may read any files."""
        loaders = (each for each in self.transforms if isinstance(each, LoadImageFromFile))
        return next((each for each in loaders if is_known(type(each))), None)

    @property
    def is_coco(self) -> bool:
        """Whether the dataset reads COCO's format like mmdet's CocoDataset."""
        # Unless this module has been imported, no dataset can be an instance of its class.
        module = sys.modules.get('mmdet.datasets.coco')
        return module is not None and isinstance(self.dataset, module.CocoDataset)


def find_sources(config: Config, split: str) -> list[DataSource]:
    """Builds the datasets of one split of the data without loading them.

    Wrappers such as RepeatDataset and ConcatDataset are replaced by the datasets inside. Datasets
    that do not inherit from mmengine's BaseDataset or cannot be built without loading are left out.

    Args:
        config: Config of the run.
        split: ``train``, ``val`` or ``test``.

    Returns:
        The datasets, in the order of the config.

    Raises:
        UserError: The config of a dataset is wrong.
    """
    loader = config.get(f'{split}_dataloader') or {}
    sources = []
    outer = loader.get('dataset')
    if loader and not isinstance(outer, dict | Dataset):
        raise UserError(
            f'{split}_dataloader.dataset must be a dict with a type, such as CocoDataset, got '
            f'{brief(outer)}'
        )
    for place, each in find_inner(config, split):
        kind = each.get('type')
        if kind is None:
            raise UserError(f'{place}: the {split} dataset has no type, such as CocoDataset')
        found = find_class(DATASETS, each, config)
        if found is not None and not issubclass(found, BaseDataset):
            continue
        with config_mistakes(config), DefaultScope.overwrite_default_scope(config.default_scope):
            description = {**each, 'lazy_init': True}
            palette = find_full_palette(config, each)
            if palette is not None:
                # mmseg would refuse an incomplete palette.
                description['metainfo'] = {**(each.get('metainfo') or {}), 'palette': palette}
            try:
                dataset = DATASETS.build(description)
            except BadArgumentError as error:
                if error.argument == 'lazy_init':
                    continue
                raise
            except AttributeError as error:
                # mmdet 2 and mmseg 0 took the folder of the images as text.
                prefix = each.get('data_prefix')
                if not isinstance(prefix, str):
                    raise
                name = 'img' if config.default_scope == 'mmdet' else 'img_path'
                raise UserError(
                    f'{place}.data_prefix must be a dict, got {prefix!r}: write '
                    f'dict({name}={prefix!r})'
                ) from error
            except AssertionError as error:
                if not _is_about_files(error):
                    raise
                named = {key: each.get(key) for key in ('data_root', 'data_prefix', 'ann_file')}
                raise UserError(
                    f'{config.filename}: {place}: a file or folder of {type_name(each)} does not '
                    f'exist: {named}'
                ) from error
        sources.append(DataSource(split, place, each, dataset))
    return sources


def is_known(defined: Any) -> bool:
    """Whether OpenMMLab or nat_mm defines a class or function, so that checks know what it does."""
    return defined.__module__.partition('.')[0] in _KNOWN_PACKAGES


def flatten_transforms(transforms: Iterable[Any]) -> Iterator[Any]:
    """Yields transforms, including those inside others such as TestTimeAug and RandomChoice."""
    for each in transforms:
        if isinstance(each, list | tuple):
            yield from flatten_transforms(each)
            continue
        yield each
        for name in ('transforms', 'subroutines'):
            inner = getattr(each, name, None)
            if isinstance(inner, list | tuple):
                yield from flatten_transforms(inner)


def _is_about_files(error: AssertionError) -> bool:
    """Whether a dataset found by an assertion without a message that files do not exist."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return not str(error) and 'exists(' in (last.line or '')
