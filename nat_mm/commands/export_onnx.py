"""Exports the backbone of a config to ONNX, for batches and images of any size.

The input "image" is [batch, 3, height, width], float32, normalized with the mean and std of the
config's data_preprocessor; height and width are at least 32. The outputs "features0", "features1"
etc. are the feature maps, [batch, channels, height / (4, 8, 16, 32), width / (4, 8, 16, 32)],
rounded up. The file is written only if onnxruntime computes the same features as PyTorch, to 1e-4,
for several image sizes.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError

from mmengine.config import Config
from mmengine.registry import MODELS

from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.checkpoints import load_pretrained, mirrors_first
from nat_mm.commands.arguments import add_config_overrides, add_mirror_option
from nat_mm.errors import UserError
from nat_mm.inference.checkpoint import weight_mistakes
from nat_mm.inference.config import config_mistakes, load_config
from nat_mm.inference.onnx_export import OPSET, export_onnx, output_names

PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file of a detector, segmentor or classifier')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint of a model or a backbone, a file, a URL or hf://owner/name; default: the '
        'weights that training starts from',
    )
    parser.add_argument('target', metavar='OUT', help='.onnx file to write')
    parser.add_argument('--force', action='store_true', help='overwrite OUT if it exists')
    add_mirror_option(parser)
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} {"is" if len(missing) == 1 else "are"} not installed: '
            'pip install "nat_mm[onnx]"'
        )
    target = Path(arguments.target)
    if target.suffix != '.onnx':
        raise UserError(f'OUT must end with .onnx, got {target}')
    if not target.parent.is_dir():
        raise UserError(f'the folder of OUT does not exist: {target.parent}')
    if target.is_dir():
        raise UserError(f'OUT is a folder: {target}')
    if target.exists() and not arguments.force:
        raise UserError(f'{target} exists; --force overwrites it')


def build_backbone(config: Config) -> NeighborhoodBackbone:
    backbone_config = (config.get('model') or {}).get('backbone')
    if backbone_config is None:
        raise UserError(f'{config.filename} has no model.backbone')
    with config_mistakes(config):
        backbone = MODELS.build(backbone_config)
    if not isinstance(backbone, NeighborhoodBackbone):
        raise UserError(
            f'{config.filename}: the backbone must be a NAT, DiNAT or DiNAT_s, '
            f'got {backbone_config.type}'
        )
    return backbone


def load_weights(backbone: NeighborhoodBackbone, config: Config, checkpoint: str | None) -> None:
    if checkpoint is None:
        if backbone.init_cfg is None:
            print('warning: without a checkpoint the weights are random', file=sys.stderr)
            return
        with weight_mistakes(config):
            backbone.init_weights()
        return
    try:
        report = load_pretrained(backbone, checkpoint)
    except URLError as error:
        raise UserError(f'cannot download {checkpoint}: {error.reason}') from error
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    wrong = [*report.missing, *report.misshaped]
    if wrong:
        raise UserError(
            f'checkpoint {checkpoint} is of another architecture than the backbone of '
            f'{config.filename}, or of a classifier, which has no output norms: {wrong[0]} and '
            f'{len(wrong) - 1} more are missing or of another shape'
        )


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    config = load_config(arguments.config, overrides=arguments.cfg_options)
    backbone = build_backbone(config)
    with mirrors_first(arguments.mirror):
        load_weights(backbone, config, arguments.checkpoint)
    try:
        difference = export_onnx(backbone, Path(arguments.target))
    except (ArithmeticError, OSError) as error:
        raise UserError(f'{arguments.target} was not written: {error}') from error
    print(
        f'{arguments.target}: {type(backbone).__name__}, opset {OPSET}, image -> '
        f'{", ".join(output_names(backbone))}; onnxruntime differs from PyTorch by {difference:.1e}'
    )
