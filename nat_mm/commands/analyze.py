"""Compares attention patterns in a config's backbone, and the saliency of checkpoints.

  nat-mm analyze configs/classification/nat/nat_tiny_in1k_224.py nat_tiny.pth --image dog.jpg

The backbone is built with each pattern: neighborhoods, stand-alone self-attention (sasa), shifted
windows and whole maps. All get the weights of the first checkpoint, or random ones. OUT_DIR gets
these files:

  analysis.json         parameters, multiply-adds, images per second, peak memory of tensors, and
                        the data of the figures
  equivariance.png      how much each token changes when the image moves by one token
  receptive_fields.png  how the receptive field grows from layer to layer
  saliency.png          with --image: the saliency of each checkpoint; for two, also the difference

Time and memory are for the backbone alone, on this machine.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nat_mm.analysis.pattern_comparison import (
    as_json,
    build_patterns,
    compare_patterns,
    draw_weights,
    print_tables,
)
from nat_mm.analysis.pattern_costs import MODES
from nat_mm.analysis.pattern_figures import draw_equivariance, draw_field_growth
from nat_mm.analysis.prepared_image import PreparedImage, prepare_image
from nat_mm.analysis.saliency import draw_saliency, saliency
from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.commands.arguments import (
    add_config_overrides,
    add_device_option,
    add_mirror_option,
    check_counts,
    check_device,
    make_parser,
)
from nat_mm.commands.drawing import find_images, read_images, value_mistakes
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError
from nat_mm.files import write_bytes
from nat_mm.inference.inputs import Frame
from nat_mm.inference.load_model import RANDOM_WEIGHTS, load_model
from nat_mm.inference.model import Model
from nat_mm.layers import ATTENTION_PATTERNS

FIGURES = 'saliency', 'equivariance', 'receptive_fields'
MOVE = 32
"""Pixels by which the image for measuring equivariance is larger than the others."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config whose backbone is NAT, DiNAT or DiNAT_s')
    parser.add_argument(
        'checkpoints',
        nargs='*',
        metavar='CHECKPOINT',
        help='checkpoint files or URLs; default: random weights of unit gain',
    )
    parser.add_argument('--image', help='image to look at; default: smooth random colors')
    parser.add_argument(
        '--patterns',
        nargs='+',
        choices=ATTENTION_PATTERNS,
        default=list(ATTENTION_PATTERNS),
        help='patterns to compare; default: all',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('H', 'W'),
        help='height and width of the images; default: 224 224. Time and memory of whole maps grow '
        'with the square of the number of pixels',
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='images at once; default: %(default)s'
    )
    parser.add_argument(
        '--modes',
        nargs='+',
        choices=MODES,
        default=['inference'],
        help='what to measure; default: inference',
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=0.3,
        help='duration of each measurement; default: %(default)s',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('analysis'),
        help='folder for the results; default: %(default)s',
    )
    add_device_option(parser)
    add_mirror_option(parser)
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    height, width = arguments.shape
    if min(height, width) < 3 * MOVE:
        raise UserError(f'--shape must be {3 * MOVE} {3 * MOVE} or more, got {height} {width}')
    check_counts(arguments, 'batch_size')
    if not arguments.seconds > 0:
        raise UserError(f'--seconds must be above 0, got {arguments.seconds:g}')
    if len(set(arguments.checkpoints)) < len(arguments.checkpoints):
        raise UserError(
            f'every checkpoint must be another file, got {", ".join(arguments.checkpoints)}'
        )
    check_device(arguments.device)


def load_checkpoints(arguments: argparse.Namespace) -> dict[str, Model]:
    """Loads the models of the checkpoints, by path of the checkpoint."""
    return {
        checkpoint: load_model(
            load_config(arguments.config, overrides=arguments.cfg_options),
            checkpoint,
            device=arguments.device,
            mirror=arguments.mirror,
        )
        for checkpoint in arguments.checkpoints or [RANDOM_WEIGHTS]
    }


def backbone_of(model: Model) -> NeighborhoodBackbone:
    backbone = getattr(model.module, 'backbone', None)
    if not isinstance(backbone, NeighborhoodBackbone):
        raise UserError(
            f'{model.config.filename}: the backbone must be NAT, DiNAT or DiNAT_s, '
            f'got {type(backbone).__name__}'
        )
    return backbone


def random_image(channels: int, shape: tuple[int, int]) -> Tensor:
    """Generates smooth random colors, [1, C, H, W]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, channels, *(length // 8 for length in shape), generator=generator)
    return interpolate(coarse, size=shape, mode='bicubic')


def title_of(checkpoint: str, others: Iterable[str]) -> str:
    """Returns the name of a checkpoint, with its folder if another has the same name."""
    path = Path(checkpoint)
    is_unique = sum(Path(other).stem == path.stem for other in others) == 1
    return path.stem if is_unique else f'{path.parent.name}/{path.stem}'


def draw_saliencies(
    models: dict[str, Model], arguments: argparse.Namespace, frame: Frame
) -> PreparedImage:
    """Draws the saliency of each model, and returns the input of the first."""
    drawn = {}
    for checkpoint, model in models.items():
        with value_mistakes(frame.file_name):
            prepared = prepare_image(
                model.module, model.config, frame, short_side=min(arguments.shape) + MOVE
            )
            drawn[title_of(checkpoint, models)] = (
                prepared,
                saliency(model.module, prepared.tensor),
            )
    draw_saliency(frame.image, drawn, arguments.out_dir / 'saliency.png')
    return next(iter(drawn.values()))[0]


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    inputs = [arguments.image] if arguments.image else []
    images = find_images(inputs, arguments.out_dir, results=FIGURES)
    models = load_checkpoints(arguments)
    model = next(iter(models.values()))
    backbone = backbone_of(model)
    if not arguments.checkpoints:
        draw_weights(backbone)
    height, width = arguments.shape
    size = (height + MOVE, width + MOVE)
    image = random_image(backbone.in_channels, size)
    for frame in read_images(images, model.loader):
        image = draw_saliencies(models, arguments, frame).tensor[..., : size[0], : size[1]]
    with value_mistakes(arguments.config):
        rows = compare_patterns(
            build_patterns(backbone, model.config.model.backbone, arguments.patterns),
            image.to(arguments.device),
            shape=(height, width),
            batch_size=arguments.batch_size,
            modes=arguments.modes,
            seconds=arguments.seconds,
        )
    print_tables(rows)
    write_bytes(arguments.out_dir / 'analysis.json', as_json(rows).encode())
    draw_equivariance(rows, arguments.out_dir / 'equivariance.png')
    sides = {row.pattern: row.field_sides for row in rows}
    draw_field_growth(sides, arguments.out_dir / 'receptive_fields.png')
    print(f'results are in {arguments.out_dir}')
