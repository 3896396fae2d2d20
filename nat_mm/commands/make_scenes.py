"""Writes a small generated dataset, the one that the demo trains on."""

import argparse
from collections.abc import Sequence

from nat_mm.demo.options import DatasetOptions
from nat_mm.demo.writer import write_dataset
from nat_mm.errors import UserError


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    defaults = DatasetOptions()
    parser = argparse.ArgumentParser(
        description='Writes a small generated dataset with COCO annotations and label PNGs.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('folder', help='new or empty folder, or the folder of an earlier dataset')
    parser.add_argument('--seed', type=int, default=defaults.seed)
    parser.add_argument('--train-scenes', type=int, default=defaults.train_scenes)
    parser.add_argument('--val-scenes', type=int, default=defaults.val_scenes)
    parser.add_argument(
        '--image-size', type=int, default=defaults.image_size, help='side in pixels'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a dataset made with other options'
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    try:
        options = DatasetOptions(
            seed=arguments.seed,
            train_scenes=arguments.train_scenes,
            val_scenes=arguments.val_scenes,
            image_size=arguments.image_size,
        )
        written = write_dataset(arguments.folder, options, overwrite=arguments.overwrite)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error
    print(f'{arguments.folder}: {"written" if written else "already there, reused"}')
