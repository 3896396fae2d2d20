"""Runs the command and reads the files that it wrote."""

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from pycocotools.coco import COCO

from nat_mm.commands import convert_annotations


@pytest.fixture
def source(tmp_path) -> Path:
    """An empty folder for the annotations."""
    folder = tmp_path / 'source'
    folder.mkdir()
    return folder


@pytest.fixture
def convert(source, tmp_path) -> Callable[..., dict[str, COCO]]:
    """Converts the source from a format to ``tmp_path / 'out'`` and reads both splits."""

    def run(kind: str, *options: str) -> dict[str, COCO]:
        out = tmp_path / 'out'
        convert_annotations.main([kind, str(source), str(out), *options])
        read = {
            split: COCO(out / f'annotations/instances_{split}.json') for split in ('train', 'val')
        }
        for split, coco in read.items():
            check(coco, out / 'images' / split)
        return read

    return run


def check(coco: COCO, folder: Path) -> None:
    """Checks that images exist in their sizes; boxes and masks lie inside and have their areas."""
    assert {path.name for path in folder.iterdir()} == {
        image['file_name'] for image in coco.imgs.values()
    }
    for image in coco.imgs.values():
        height, width, _ = cv2.imread(str(folder / image['file_name'])).shape
        assert (width, height) == (image['width'], image['height'])
    for each in coco.anns.values():
        image = coco.imgs[each['image_id']]
        assert each['category_id'] in coco.cats
        x, y, width, height = each['bbox']
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert x + width <= image['width']
        assert y + height <= image['height']
        if 'segmentation' in each:
            assert coco.annToMask(each).sum() == each['area']
