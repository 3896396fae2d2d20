"""Datasets in COCO's format that tests can corrupt."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

import nat_mm  # noqa: F401
from nat_mm.config.datasets import SPLITS
from nat_mm.data.coco import check_coco
from nat_mm.data.findings import Finding
from nat_mm.data.sources import find_sources

LOADING = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
]
FOLDERS = {'train': 'training', 'val': 'validation'}


@pytest.fixture
def content(small_data: Path) -> dict[str, dict]:
    """The contents of the annotation files by split; `write` writes them."""
    names = {split: small_data / 'coco' / f'{folder}.json' for split, folder in FOLDERS.items()}
    return {split: json.loads(path.read_text()) for split, path in names.items()}


@pytest.fixture
def config(small_data: Path, tmp_path: Path) -> Config:
    """A config of datasets and evaluators whose annotation files `write` writes."""
    return make_config(small_data, tmp_path)


def make_config(images: Path, annotations: Path) -> Config:
    settings = dict(default_scope='mmdet')
    for split in SPLITS:
        name = 'train' if split == 'train' else 'val'
        settings[f'{split}_dataloader'] = dict(
            dataset=dict(
                type='CocoDataset',
                data_root=str(images),
                ann_file=str(annotations / f'{name}.json'),
                data_prefix=dict(img=f'images/{FOLDERS[name]}'),
                metainfo=dict(classes=('box', 'disc')),
                filter_cfg=dict(filter_empty_gt=True) if split == 'train' else None,
                test_mode=split != 'train',
                pipeline=copy.deepcopy(LOADING if split == 'train' else LOADING[:1]),
            )
        )
        if split != 'train':
            settings[f'{split}_evaluator'] = dict(
                type='CocoMetric',
                ann_file=str(annotations / f'{name}.json'),
                metric=['bbox', 'segm'],
            )
    init_default_scope('mmdet')
    return Config(settings)


@pytest.fixture
def write(content: dict[str, dict], tmp_path: Path) -> Callable[[], None]:
    """Writes the annotation files."""

    def run() -> None:
        for split, each in content.items():
            (tmp_path / f'{split}.json').write_text(json.dumps(each))

    return run


@pytest.fixture
def check(config: Config, write: Callable[[], None]) -> Callable[..., tuple[list[str], list[str]]]:
    """Writes the annotations and returns the errors and the warnings."""

    def run(
        *, splits: Sequence[str] = SPLITS, images: bool = False, distinct: bool = True
    ) -> tuple[list[str], list[str]]:
        write()
        sources = {split: find_sources(config, split) for split in splits}
        found = check_coco(config, sources, images=images)
        findings = [each for each in found if isinstance(each, Finding)]
        if distinct:  # a file that several datasets read gives one finding
            findings = list(dict.fromkeys(findings))
        errors = [each.text for each in findings if each.is_error]
        return errors, [each.text for each in findings if not each.is_error]

    return run
