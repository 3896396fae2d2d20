"""Converts label images to PNGs of one channel, whose values are the numbers of classes.

Palette and 1-bit PNGs keep their values, and images of equal channels keep one. Other values and
colors get the number of a class by --map: 255=1 makes the foreground of masks of 0 and 255 class 1,
and 128,0,0=3 makes that color class 3. Values without such an entry stay; colors must all have one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nat_mm.data.label_conversion import convert_labels, parse_mapping


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('labels', type=Path, help='folder of label images, searched recursively')
    parser.add_argument('out_dir', type=Path, help='folder for the converted ones, named alike')
    parser.add_argument(
        '--map',
        nargs='+',
        default=[],
        metavar='OLD=NEW',
        help='a value such as 255=1, or a color red,green,blue such as 128,0,0=3',
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    values, colors = parse_mapping(arguments.map)
    pixels = convert_labels(arguments.labels, arguments.out_dir, values=values, colors=colors)
    print(f'{arguments.out_dir}: pixels of each value:')
    for value, count in pixels.items():
        print(f'{value:>5} {count:>14}')
