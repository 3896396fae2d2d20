"""Predicts pictures, videos or a camera with a trained detector, segmentor or classifier.

Which of them it is, the config says. Written below OUT_DIR, NAME being that of the input:

  pictures/NAME.jpg   a picture with what was found drawn into it
  videos/NAME.mp4     the same of a video (H.264); of a camera camera0.mp4
  results/NAME.*      the data; of a video results/NAME/000000.* and so on, one for each image:
                      detector    .json, boxes (x1, y1, x2, y2 in pixels) and masks; of a panoptic
                                  model also .png, the segments as COCO has them
                      segmentor   .png, the class number of every pixel; names in classes.json
                      classifier  .json, the five likeliest classes
  coco/               of a detector the objects of all images: results.json as COCO's evaluation
                      loads them, images.json with the image_ids, and with the category_ids, which
                      are class numbers plus 1

Results of the same name from an earlier run are replaced.

Inputs that cannot be read or predicted are left out and named at the end, with exit code 2: what is
no picture or no file, too large, too small for the model, or has a name too long for its results.
Ctrl-C ends the prediction with exit code 130; what was predicted until then is complete, videos and
lists too.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nat_mm.commands.arguments import add_config_overrides
from nat_mm.commands.device import add_device_option, check_device
from nat_mm.commands.running import printable
from nat_mm.errors import UserError
from nat_mm.inference.images import MEGAPIXELS
from nat_mm.inference.inputs import find_inputs, list_unreadable
from nat_mm.inference.model import load_model
from nat_mm.inference.prediction import check_outputs, predict_all

EXIT_CODE_OF_INTERRUPT = 130


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        'inputs',
        nargs='+',
        help='pictures, folders of pictures, globs such as "photos/**/*.jpg" (in quotes), videos, '
        'or the index of a camera such as 0',
    )
    parser.add_argument(
        '--out-dir', default='predictions', help='folder for the results; default: %(default)s'
    )
    add_device_option(parser)
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='images predicted at once, if of the same size; default: %(default)s',
    )
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        help='lowest score of the objects that are drawn and written, from 0 to 1; '
        'default: %(default)s',
    )
    parser.add_argument(
        '--max-frames',
        type=int,
        help='images read of each video or camera; default: all, of a camera until Ctrl-C',
    )
    parser.add_argument(
        '--fps',
        type=float,
        help='images in a second of the videos that are written; default: those of the input, of '
        'a camera 25, which makes it fast motion where predicting is slower',
    )
    parser.add_argument(
        '--max-megapixels',
        type=float,
        default=MEGAPIXELS,
        help='size of the largest images that are decoded; larger ones are left out, as a small '
        'file can hold one that takes all memory; default: %(default)s',
    )
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    check_device(arguments.device)
    if arguments.batch_size < 1:
        raise UserError(f'--batch-size must be at least 1, got {arguments.batch_size}')
    if not 0 <= arguments.score_threshold <= 1:
        raise UserError(f'--score-threshold must be from 0 to 1, got {arguments.score_threshold}')
    if arguments.max_frames is not None and arguments.max_frames < 1:
        raise UserError(f'--max-frames must be at least 1, got {arguments.max_frames}')
    if not arguments.max_megapixels > 0:
        raise UserError(f'--max-megapixels must be above 0, got {arguments.max_megapixels:g}')
    if arguments.fps is not None and not 1 <= arguments.fps <= 1000:
        raise UserError(f'--fps must be from 1 to 1000, got {arguments.fps:g}')


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    media = find_inputs(arguments.inputs, max_frames=arguments.max_frames)
    check_outputs(media, Path(arguments.out_dir))
    model = load_model(
        arguments.config,
        arguments.checkpoint,
        device=arguments.device,
        overrides=arguments.cfg_options,
    )
    outcome = predict_all(
        media,
        model,
        out_dir=Path(arguments.out_dir),
        score_threshold=arguments.score_threshold,
        batch_size=arguments.batch_size,
        fps=arguments.fps,
        max_megapixels=arguments.max_megapixels,
    )
    if outcome.predicted:
        images = 'image' if outcome.predicted == 1 else 'images'
        print(printable(f'results of {outcome.predicted} {images} are in {arguments.out_dir}'))
    if outcome.interrupted:
        print('interrupted before the end', file=sys.stderr)
        sys.exit(EXIT_CODE_OF_INTERRUPT)
    if outcome.unreadable:
        raise UserError(list_unreadable(outcome.unreadable, media))
