"""Draws training images as the model sees them, augmented and batched by the config.

The images have the order and padding of the batches. Normalization is undone, and the boxes, masks
and classes of the ground truth are drawn over them. They are written to
OUT_DIR/PHASE_seedSEED_NUMBER.png. The same seed draws the same images.
"""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from nat_mm.analysis.batches import draw_batches
from nat_mm.commands.arguments import add_config, add_config_overrides, check_counts, make_parser
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError
from nat_mm.files import check_folder, write_image


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument(
        '--phase',
        choices=('train', 'val', 'test'),
        default='train',
        help='split of the data; default: %(default)s',
    )
    parser.add_argument(
        '--number',
        type=int,
        default=20,
        help='number of images, at most one epoch; default: %(default)s',
    )
    parser.add_argument(
        '--seed', type=int, help="0 or more; default: the config's randomness.seed, or 0"
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('browsed'),
        help='folder for the images; default: %(default)s',
    )
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    check_counts(arguments, 'number')
    if arguments.seed is not None and not 0 <= arguments.seed < 2**31:
        raise UserError(f'--seed must be from 0 to {2**31 - 1}, got {arguments.seed}')
    check_folder(arguments.out_dir, name='--out-dir')


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    config = load_config(arguments.config, overrides=arguments.cfg_options)
    seed = arguments.seed
    if seed is None:
        seed = config.get('randomness', {}).get('seed') or 0
    inputs = draw_batches(config, arguments.phase, seed=seed)
    for number, drawn in enumerate(islice(inputs, arguments.number)):
        path = arguments.out_dir / f'{arguments.phase}_seed{seed}_{number:04d}.png'
        write_image(path, drawn.image[..., ::-1])
        print(f'{path}: from {drawn.source}' if drawn.source else path)
