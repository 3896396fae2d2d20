"""Times nat-mm check on generated data of COCO's size.

    python -m benchmarks.check_data --folder /tmp/large

writes 118,000 links to a few JPEGs, and annotations with 860,000 polygons of 50 numbers, about as
much as COCO's training set, unless the folder already contains them. It then checks the data, and
prints the seconds and the peak memory of the process.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

import nat_mm  # noqa: F401 - repairs OpenMMLab
from nat_mm.commands.progress import show_progress
from nat_mm.data.check import check_config

WIDTH, HEIGHT = 640, 480
CLASSES = [f'class {number}' for number in range(80)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--folder', type=Path, required=True, help='where the data are or go')
    parser.add_argument('--images', type=int, default=118_000)
    parser.add_argument('--annotations', type=int, default=860_000)
    arguments = parser.parse_args()
    path = arguments.folder / 'annotations.json'
    if not path.exists():
        write_data(arguments.folder, arguments.images, arguments.annotations)
    print(f'{path}: {path.stat().st_size / 1e6:.0f} MB')
    init_default_scope('mmdet')
    before = peak_memory()
    started, worked = time.perf_counter(), time.process_time()
    with show_progress() as progress:
        report = check_config(make_config(arguments.folder), splits=['train'], progress=progress)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    for finding in report.findings:
        print(finding)
    print(
        f'{seconds:.1f} s, {worked:.1f} s of it on a core, {peak_memory():.2f} GB at most, '
        f'{before:.2f} GB of it before; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores'
    )


def make_config(folder: Path) -> Config:
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(),
            train_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(folder),
                    ann_file='annotations.json',
                    data_prefix=dict(img='images'),
                    metainfo=dict(classes=CLASSES),
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='LoadAnnotations', with_mask=True),
                    ],
                )
            ),
        )
    )


def write_data(folder: Path, images: int, annotations: int) -> None:
    (folder / 'images').mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(100, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    _, jpeg = cv2.imencode('.jpg', noise, [cv2.IMWRITE_JPEG_QUALITY, 20])
    for number in range(images):
        path = folder / 'images' / f'{number:012}.jpg'
        # File systems limit the number of links to a file.
        if number % 10_000 == 0:
            source = path
            path.write_bytes(jpeg.tobytes())
        else:
            os.link(source, path)
    with open(folder / 'annotations.json', 'w') as file:
        file.write('{"images": [')
        _write_list(file, _images(images))
        file.write('], "annotations": [')
        _write_list(file, _annotations(annotations, images, rng))
        categories = [{'id': number + 1, 'name': name} for number, name in enumerate(CLASSES)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _images(count: int) -> Iterator[dict]:
    for number in range(count):
        yield {'id': number, 'file_name': f'{number:012}.jpg', 'width': WIDTH, 'height': HEIGHT}


def _annotations(count: int, images: int, rng: np.random.Generator) -> Iterator[dict]:
    for number in range(count):
        left, top = rng.integers(0, 400, 2).tolist()
        width, height = rng.integers(4, 80, 2).tolist()
        points = rng.random((25, 2)) * (width, height) + (left, top)
        yield {
            'id': number + 1,
            'image_id': number % images,
            'category_id': number % len(CLASSES) + 1,
            'bbox': [left, top, width, height],
            'area': width * height / 2,
            'iscrowd': 0,
            'segmentation': [points.flatten().round(2).tolist()],
        }


def _write_list(file, entries: Iterator[dict]) -> None:
    for number, entry in enumerate(entries):
        file.write((', ' if number else '') + json.dumps(entry))


def peak_memory() -> float:
    """Returns the peak memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == '__main__':
    main()
