"""Converts a checkpoint of a NAT, DiNAT or DiNAT_s to another layout.

It reads the authors' classifiers, detectors and segmentors (also from detectron2), Hugging Face's
Nat and Dinat, and models trained with nat_mm, and recognizes them by their keys.
"""

import argparse
from collections.abc import Sequence
from urllib.error import URLError

from nat_mm.checkpoints import convert_checkpoint, mirrors_first
from nat_mm.checkpoints.layouts import TARGETS
from nat_mm.commands.arguments import add_mirror_option, make_parser
from nat_mm.errors import UserError


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('source', metavar='IN', help='checkpoint: a file, a URL or hf://owner/name')
    parser.add_argument(
        'target',
        metavar='OUT',
        help='.pth, .pt, .bin or .safetensors file to write',
    )
    parser.add_argument(
        '--to',
        choices=TARGETS,
        default='model',
        help='model (default): a detector, segmentor or mmpretrain classifier, for nat-mm test; '
        "backbone: the backbone of a new detector or segmentor; authors: for the authors' own "
        'code; huggingface-nat, huggingface-dinat: for Hugging Face transformers',
    )
    add_mirror_option(parser)
    parser.add_argument('--force', action='store_true', help='overwrite OUT if it exists')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    try:
        with mirrors_first(arguments.mirror):
            conversion = convert_checkpoint(
                arguments.source, arguments.target, to=arguments.to, overwrite=arguments.force
            )
    except FileExistsError as error:
        raise UserError(f'{error}; --force overwrites it') from error
    except URLError as error:
        raise UserError(f'cannot download {arguments.source}: {error.reason}') from error
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    print(
        f'{arguments.source} ({conversion.layout} layout, {conversion.read} tensors) -> '
        f'{arguments.target} ({arguments.to} layout, {conversion.written} tensors)'
    )
