"""Exports a model, or its backbone, to ONNX, for images of any size.

--part model, the default, exports a detector (RetinaNet, Faster, Mask or Cascade R-CNN) or a
segmentor, including postprocessing. The outputs have the size of the input image:

  detector    "boxes" [n, 4], "scores" [n], "labels" [n] and, for a model with masks,
              "masks" [n, height, width]
  segmentor   "labels" and "scores" [batch, height, width]

With --preprocess, the input "image" is uint8, [height, width, 3], BGR as OpenCV reads it, and the
model resizes, normalizes and pads it as the config's test pipeline does. Otherwise, it is float32,
[batch, 3, height, width], at least 32 x 32, normalized with the mean and std of the config's
data_preprocessor.

--part backbone exports the backbone alone. The outputs "features0", "features1" etc. are the
feature maps, [batch, channels, height / (4, 8, 16, 32), width / (4, 8, 16, 32)], rounded up.

The file is written only if onnxruntime gives the same results as PyTorch, for several image sizes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS

from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.checkpoints import load_pretrained, mirrors_first
from nat_mm.commands.arguments import (
    add_config,
    add_config_overrides,
    add_mirror_option,
    check_installed,
    make_parser,
)
from nat_mm.commands.misfits import misfits_explained
from nat_mm.config.objects import type_name
from nat_mm.config.reading import config_mistakes, load_config
from nat_mm.errors import FileWriteError, UserError, shorten
from nat_mm.export.backbone import output_names, write_backbone
from nat_mm.export.files import write_model
from nat_mm.export.model import model_to_onnx
from nat_mm.export.program import OPSET
from nat_mm.files import check_is_text
from nat_mm.inference.checkpoint import weight_mistakes
from nat_mm.inference.images import check_not_overwritten
from nat_mm.inference.inputs import find_inputs, read_all
from nat_mm.inference.load_model import load_model
from nat_mm.inference.model import Model


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint: a file, a URL or hf://owner/name; default: the published weights of the '
        'config or, for --part backbone, its pretrained weights',
    )
    parser.add_argument('target', metavar='OUT', help='.onnx file to write')
    parser.add_argument(
        '--part',
        choices=('model', 'backbone'),
        default='model',
        help='what to export; default: %(default)s',
    )
    parser.add_argument(
        '--preprocess', action='store_true', help='include the test pipeline; the input is uint8'
    )
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help='images for the comparison, in addition to generated ones',
    )
    parser.add_argument(
        '--int8',
        metavar='FOLDER',
        help='quantize convolutions and linear layers to int8, calibrated with the images in this '
        'folder; 50 to 200 typical images suffice',
    )
    parser.add_argument('--force', action='store_true', help='overwrite OUT if it exists')
    add_mirror_option(parser)
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    check_installed('onnx', 'onnxscript', 'onnxruntime', extra='onnx')
    target = Path(arguments.target)
    if target.suffix != '.onnx':
        raise UserError(f'OUT must end with .onnx, got {target}')
    check_is_text(target, name='OUT')
    if not target.parent.is_dir():
        raise UserError(f'the folder of OUT does not exist: {target.parent}')
    if target.is_dir():
        raise UserError(f'OUT is a folder: {target}')
    if target.exists() and not arguments.force:
        raise UserError(f'{target} exists; --force overwrites it')
    if arguments.checkpoint is not None:
        check_not_overwritten([Path(arguments.checkpoint)], [target])
    if arguments.part == 'backbone':
        for option in ('preprocess', 'images', 'int8'):
            if getattr(arguments, option):
                raise UserError(f'--{option} needs --part model')


def build_backbone(config: Config) -> NeighborhoodBackbone:
    backbone_config = (config.get('model') or {}).get('backbone')
    if backbone_config is None:
        raise UserError(f'{config.filename} has no model.backbone')
    with config_mistakes(config):
        backbone = MODELS.build(backbone_config)
    if not isinstance(backbone, NeighborhoodBackbone):
        raise UserError(
            f'{config.filename}: the backbone must be a NAT, DiNAT or DiNAT_s, '
            f'got {type_name(backbone_config)}'
        )
    return backbone.eval()


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
            f'checkpoint {checkpoint} has another architecture than the backbone of '
            f'{config.filename}, or of a classifier, which has no output norms; missing or of '
            f'another shape: {shorten(wrong, 1)}'
        )


def export_backbone(config: Config, arguments: argparse.Namespace) -> str:
    """Exports the backbone, and returns a message for the user."""
    backbone = build_backbone(config)
    load_weights(backbone, config, arguments.checkpoint)
    difference = write_backbone(backbone, Path(arguments.target))
    return (
        f'{type(backbone).__name__}, opset {OPSET}, image -> {", ".join(output_names(backbone))}; '
        f'onnxruntime differs from PyTorch by {difference:.1e}'
    )


def read_folder(model: Model, folder: str | None) -> list[np.ndarray]:
    """Reads the images of a folder, [height, width, 3], uint8."""
    if folder is None:
        return []
    return [frame.image for frame in read_all(find_inputs([folder]), model.loader)]


def export_model(config: Config, arguments: argparse.Namespace) -> str:
    """Exports the whole model, and returns a message for the user."""
    model = load_model(config, arguments.checkpoint, device='cpu')
    images = read_folder(model, arguments.images)
    calibration = read_folder(model, arguments.int8)
    with misfits_explained(config):
        exported = model_to_onnx(model, preprocess=arguments.preprocess)
    outputs = ', '.join(each.name for each in exported.graph.output)
    written = write_model(
        exported,
        Path(arguments.target),
        model,
        preprocess=arguments.preprocess,
        images=images,
        calibration=calibration,
    )
    what = 'objects' if model.task == 'detection' else 'pixels'
    message = (
        f'{type(model.module).__name__}, opset {OPSET}, image -> {outputs}; onnxruntime agrees '
        f'with PyTorch on {written.agreement:.2%} of the {what}'
    )
    if model.task == 'detection':
        message += f' ({written.compared} compared)'
        if not written.compared:
            print(
                'warning: the model finds nothing in the generated images of the check: '
                '--images FOLDER compares in images of yours',
                file=sys.stderr,
            )
    if written.quantized_agreement is not None:
        message += (
            f', and with {written.quantized} layers in int8 on {written.quantized_agreement:.2%}'
        )
    return message


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    config = load_config(arguments.config, overrides=arguments.cfg_options)
    export = export_model if arguments.part == 'model' else export_backbone
    try:
        with mirrors_first(arguments.mirror):
            message = export(config, arguments)
    except FileWriteError:
        raise
    except (ArithmeticError, OSError) as error:
        raise UserError(f'{arguments.target} was not written: {error}') from error
    print(f'{arguments.target}: {message}')
