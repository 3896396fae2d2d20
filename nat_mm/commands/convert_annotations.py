"""Converts Pascal VOC, YOLO or labelme annotations to COCO, split into training and validation.

OUT gets images/{train,val} and annotations/instances_{train,val}.json and, with --label-images,
labels/{train,val} for segmentors.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nat_mm.commands.arguments import make_parser
from nat_mm.commands.running import printable
from nat_mm.data.formats.annotated import Annotations
from nat_mm.data.formats.labelme import read_labelme
from nat_mm.data.formats.split import is_split, split_images
from nat_mm.data.formats.voc import read_voc
from nat_mm.data.formats.write import BACKGROUND, SPLITS, write_coco
from nat_mm.data.formats.yolo import read_yolo
from nat_mm.errors import UserError

READERS = {'voc': read_voc, 'yolo': read_yolo, 'labelme': read_labelme}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('format', choices=READERS, help='format of SOURCE')
    parser.add_argument('source', metavar='SOURCE', type=Path, help='folder with the annotations')
    parser.add_argument('target', metavar='OUT', type=Path, help='new or empty folder to write')
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        help='share of the images for validation, unless SOURCE has both splits; default: 0.2',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the split; default: 0')
    parser.add_argument(
        '--label-images', action='store_true', help='also draw the masks as label images'
    )
    return parser.parse_args(arguments)


def describe(annotations: Annotations) -> Table:
    """Creates a table with the numbers of images and objects in each split."""
    counts = {
        split: Counter(
            each.name
            for image in annotations.images
            if image.split == split
            for each in image.objects
        )
        for split in SPLITS
    }
    images = Counter(image.split for image in annotations.images)
    table = Table('', *SPLITS)
    table.add_row('images', *(str(images[split]) for split in SPLITS))
    for name in annotations.classes:
        table.add_row(printable(name), *(str(counts[split][name]) for split in SPLITS))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    try:
        annotations = READERS[arguments.format](arguments.source)
        images = annotations.images
        if not any(image.objects for image in images):
            raise UserError(f'{arguments.source} has no annotated object')
        was_split = is_split(images)
        images[:] = split_images(images, val_fraction=arguments.val_fraction, seed=arguments.seed)
        write_coco(annotations, arguments.target, label_images=arguments.label_images)
    except OSError as error:
        raise UserError(str(error)) from error

    Console(markup=False).print(describe(annotations))
    if was_split:
        print('split into train and val as in the source')
    for what, count in annotations.left_out.items():
        print(f'left out: {count} {what}')
    objects = [each for image in images for each in image.objects]
    boxes = sum(not each.polygons and each.mask is None for each in objects)
    if boxes:
        print(f'{boxes} of {len(objects)} objects have a box but no mask')
    if arguments.label_images:
        print(f'dataset_classes = {(BACKGROUND, *annotations.classes)}')
    print(f'written: {arguments.target}')
