"""Panoptic annotations of the small dataset, and commands run on small models."""

import functools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from nat_mm.compat.panopticapi.utils import id2rgb
from tests.loading import Run, forget_visualizers
from tests.mask2former.small import RUN, SHIPPED, shipped_config, small_config


@pytest.fixture(scope='session')
def data(small_data: Path) -> Path:
    """The small dataset, with panoptic annotations of the same images in ``panoptic``.

    The categories are the things box (1) and disc (2) and the stuff background (3). In
    ``cityscapes``, they are Cityscapes' person, car and road, and the files are as written by its
    scripts.
    """
    for part in ('training', 'validation'):
        write_panoptic(small_data, part)
        write_cityscapes(small_data, part)
    return small_data


def write_panoptic(root: Path, part: str) -> None:
    content = json.loads((root / 'coco' / f'{part}.json').read_text())
    folder = root / 'panoptic' / part
    folder.mkdir(parents=True)
    annotations = []
    for image in content['images']:
        name = Path(image['file_name']).with_suffix('.png').name
        labels = cv2.imread(str(root / 'annotations' / part / name), cv2.IMREAD_UNCHANGED)
        segments = np.zeros(labels.shape, np.int64)
        segments_info = []
        for label, category in ((1, 3), (2, 1), (3, 2)):
            # The numbers have more than one byte, so that all channels matter.
            number = 300 * 256 * label + category
            mask = labels == label
            segments[mask] = number
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            segments_info.append(
                {
                    'id': number,
                    'category_id': category,
                    'area': int(mask.sum()),
                    'bbox': [x, y, width, height],
                    'iscrowd': 0,
                }
            )
        cv2.imwrite(str(folder / name), id2rgb(segments)[..., ::-1])
        annotations.append(
            {'image_id': image['id'], 'file_name': name, 'segments_info': segments_info}
        )
    content['annotations'] = annotations
    content['categories'] = [
        {'id': 1, 'name': 'box', 'isthing': 1},
        {'id': 2, 'name': 'disc', 'isthing': 1},
        {'id': 3, 'name': 'background', 'isthing': 0},
    ]
    (root / 'panoptic' / f'{part}.json').write_text(json.dumps(content))


# The categories in the order of Cityscapes' scripts: number, name, whether it is a thing.
CITYSCAPES = [
    *[(7, 'road', 0), (8, 'sidewalk', 0), (11, 'building', 0), (12, 'wall', 0), (13, 'fence', 0)],
    *[(17, 'pole', 0), (19, 'traffic light', 0), (20, 'traffic sign', 0), (21, 'vegetation', 0)],
    *[(22, 'terrain', 0), (23, 'sky', 0), (24, 'person', 1), (25, 'rider', 1), (26, 'car', 1)],
    *[(27, 'truck', 1), (28, 'bus', 1), (31, 'train', 1), (32, 'motorcycle', 1)],
    *[(33, 'bicycle', 1)],
]


def write_cityscapes(root: Path, part: str) -> None:
    content = json.loads((root / 'panoptic' / f'{part}.json').read_text())
    short = {'training': 'train', 'validation': 'val'}[part]
    images = root / 'cityscapes/leftImg8bit' / short / 'town'
    segments = root / 'cityscapes/gtFine' / f'cityscapes_panoptic_{short}'
    for folder in (images, segments):
        folder.mkdir(parents=True)
    names = {}
    for number, image in enumerate(content['images']):
        name = names[image['id']] = f'town_000000_{number:06d}'
        original = cv2.imread(str(root / 'images' / part / image['file_name']))
        cv2.imwrite(str(images / f'{name}_leftImg8bit.png'), original)
        image.update(id=name, file_name=f'{name}_gtFine_leftImg8bit.png')
    for annotation in content['annotations']:
        name = names[annotation['image_id']]
        original = root / 'panoptic' / part / annotation['file_name']
        shutil.copy(original, segments / f'{name}_gtFine_panoptic.png')
        annotation.update(image_id=name, file_name=f'{name}_gtFine_panoptic.png')
        for segment in annotation['segments_info']:
            segment['category_id'] = {1: 24, 2: 26, 3: 7}[segment['category_id']]
    content['categories'] = [
        {'id': number, 'name': name, 'isthing': is_thing} for number, name, is_thing in CITYSCAPES
    ]
    (segments.parent / f'{segments.name}.json').write_text(json.dumps(content))


@pytest.fixture(params=SHIPPED, scope='module')
def built(request: pytest.FixtureRequest) -> tuple[str, Config, nn.Module]:
    """Each task, its shipped config and its model, without memory for the weights."""
    config, model = build(request.param)
    init_default_scope(config.default_scope)
    return request.param, config, model


@functools.cache
def build(task: str) -> tuple[Config, nn.Module]:
    config = shipped_config(task)
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        return config, MODELS.build(config.model)


@pytest.fixture(scope='session')
def configs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the small configs by task."""
    folder = tmp_path_factory.mktemp('configs')
    paths = {task: folder / f'small_{task}.py' for task in (*RUN, 'cityscapes_panoptic')}
    for task, path in paths.items():
        small_config(task, data).dump(path)
    return paths


@pytest.fixture(scope='session', params=RUN)
def trained(
    request: pytest.FixtureRequest,
    train: Run,
    configs: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    """Each task, and the work directory of a run of two iterations."""
    work_dir = tmp_path_factory.mktemp(f'trained_{request.param}')
    forget_visualizers()
    train([str(configs[request.param]), '--work-dir', str(work_dir)])
    return request.param, work_dir
