"""Command: ``python -m nat_mm.datasets FOLDER``."""

import argparse

from nat_mm.cli.errors import CommandError, run_command
from nat_mm.datasets.options import DatasetOptions
from nat_mm.datasets.writer import write_dataset


def parse_arguments() -> argparse.Namespace:
    defaults = DatasetOptions()
    parser = argparse.ArgumentParser(
        prog='python -m nat_mm.datasets',
        description='Write the generated demo data set (COCO and ADE20K-style annotations).',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('folder', help='where to write: new, empty, or written by this earlier')
    parser.add_argument('--seed', type=int, default=defaults.seed)
    parser.add_argument('--train-scenes', type=int, default=defaults.train_scenes)
    parser.add_argument('--val-scenes', type=int, default=defaults.val_scenes)
    parser.add_argument(
        '--image-size', type=int, default=defaults.image_size, help='side in pixels'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a data set made with other options'
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    try:
        options = DatasetOptions(
            seed=arguments.seed,
            train_scenes=arguments.train_scenes,
            val_scenes=arguments.val_scenes,
            image_size=arguments.image_size,
        )
        written = write_dataset(arguments.folder, options, overwrite=arguments.overwrite)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise CommandError(str(error)) from error
    print(f'{arguments.folder}: {"written" if written else "already there, reused"}')


if __name__ == '__main__':
    run_command(main)
