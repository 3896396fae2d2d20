"""Converts label images to PNGs with one channel, whose values are class numbers.

Palette and 1-bit PNGs keep their values. Images with equal channels keep one of them. --map changes
values and colors to class numbers: 255=1 turns the foreground of masks of 0 and 255 into class 1,
and 128,0,0=3 turns that color into class 3. Values without an entry stay the same; every color
needs one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nat_mm.data.label_conversion import convert_labels, parse_mapping


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('labels', type=Path, help='folder of label images, searched recursively')
    parser.add_argument('out_dir', type=Path, help='folder for the PNGs, which keep their names')
    parser.add_argument(
        '--map',
        nargs='+',
        action='extend',
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
