"""Predicts images, videos or a camera stream with a trained detector, segmentor or classifier.

Files in OUT_DIR, where NAME is the name of the input:

  images/NAME.jpg     the image with the prediction drawn over it
  videos/NAME.mp4     the video with the predictions (H.264); camera0.mp4 for a camera
  results/NAME.*      the prediction, or a folder with one file per frame of a video:
                      detector    .json with boxes (x1, y1, x2, y2 in pixels) and masks; for a
                                  panoptic model also .png with the segments in COCO's format
                      segmentor   .png with the class of each pixel, numbered as in the ground
                                  truth; classes.json has the names by number
                      classifier  .json with the five most likely classes
  coco/               the objects that a detector found in all images: results.json in COCO's
                      results format, images.json with the image_ids; category_ids are labels + 1

If files in different folders have the same name, NAME includes their folders. Earlier results of
the same name are overwritten. An input that is given twice is predicted once. The config's test
pipeline loads the images.

An input that cannot be predicted does not stop the others: files that are not images, not regular
files or too large, or whose names are too long. They are listed at the end, with exit code 2. After
Ctrl-C (exit code 130) or SIGTERM (143), everything predicted so far is complete.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nat_mm.commands.arguments import (
    add_config,
    add_config_overrides,
    add_device_option,
    add_mirror_option,
    add_opacity_option,
    check_counts,
    check_device,
    make_parser,
)
from nat_mm.commands.misfits import misfits_explained
from nat_mm.commands.running import INTERRUPTED, printable
from nat_mm.errors import UserError
from nat_mm.inference.drawing import SCORE_THRESHOLD, check_opacity
from nat_mm.inference.images import MEGAPIXELS
from nat_mm.inference.inputs import check_result_names, find_inputs
from nat_mm.inference.load_model import load_model
from nat_mm.inference.prediction import check_outputs, predict_all
from nat_mm.inference.tiling import Tiling


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint: a file, a URL or hf://owner/name')
    parser.add_argument(
        'inputs',
        nargs='+',
        help='images, folders of images, globs such as "photos/**/*.jpg" (in quotes), videos, or '
        'the number of a camera such as 0',
    )
    parser.add_argument(
        '--out-dir', default='predictions', help='folder for the results; default: %(default)s'
    )
    add_device_option(parser)
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='images of the same size predicted at once; default: %(default)s',
    )
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=SCORE_THRESHOLD,
        help="drop objects with lower scores, from 0 to 1; may be lower than the config's own "
        'threshold; default: %(default)s',
    )
    add_opacity_option(parser)
    parser.add_argument(
        '--max-frames',
        type=int,
        help='frames to read from each video or camera; default: all of a video, or until Ctrl-C',
    )
    parser.add_argument(
        '--fps',
        type=float,
        help='frame rate of the written videos; default: that of the input, 25 for a camera',
    )
    parser.add_argument(
        '--max-megapixels',
        type=float,
        default=MEGAPIXELS,
        help='skip larger images, since a small file can hold an image that fills the memory; '
        'default: %(default)s',
    )
    add_mirror_option(parser)
    parser.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='predict large images in square tiles with this side, --batch-size of them at once; '
        "detectors need the extra tile (pip install 'nat_mm[tile]')",
    )
    parser.add_argument(
        '--overlap',
        type=int,
        metavar='PIXELS',
        help='pixels by which neighboring tiles overlap, at most half of --tile; default: an '
        'eighth of it',
    )
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    check_device(arguments.device)
    check_counts(arguments, 'batch_size', 'max_frames')
    if not 0 <= arguments.score_threshold <= 1:
        raise UserError(f'--score-threshold must be from 0 to 1, got {arguments.score_threshold}')
    check_opacity(arguments.opacity, '--opacity')
    if not arguments.max_megapixels > 0:
        raise UserError(f'--max-megapixels must be above 0, got {arguments.max_megapixels:g}')
    if arguments.fps is not None and not 1 <= arguments.fps <= 1000:
        raise UserError(f'--fps must be from 1 to 1000, got {arguments.fps:g}')
    if arguments.overlap is not None and arguments.tile is None:
        raise UserError('--overlap needs --tile')


def read_tiling(arguments: argparse.Namespace) -> Tiling | None:
    """Returns the requested tiles."""
    if arguments.tile is None:
        return None
    overlap = arguments.tile // 8 if arguments.overlap is None else arguments.overlap
    return Tiling(arguments.tile, overlap)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    tiling = read_tiling(arguments)
    media = find_inputs(arguments.inputs, max_frames=arguments.max_frames)
    check_result_names(media)
    check_outputs(media, Path(arguments.out_dir))
    model = load_model(
        arguments.config,
        arguments.checkpoint,
        device=arguments.device,
        overrides=arguments.cfg_options,
        mirror=arguments.mirror,
    )
    with misfits_explained(model.config):
        outcome = predict_all(
            media,
            model,
            out_dir=Path(arguments.out_dir),
            score_threshold=arguments.score_threshold,
            opacity=arguments.opacity,
            batch_size=arguments.batch_size,
            fps=arguments.fps,
            max_megapixels=arguments.max_megapixels,
            tiling=tiling,
        )
    if outcome.predicted:
        images = 'image' if outcome.predicted == 1 else 'images'
        print(printable(f'results of {outcome.predicted} {images} are in {arguments.out_dir}'))
    if outcome.interrupted:
        print('interrupted before the end', file=sys.stderr)
        sys.exit(INTERRUPTED)
    if outcome.left_out:
        raise UserError(outcome.left_out.describe(media))
