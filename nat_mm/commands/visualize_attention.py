"""Draws what tokens of a NAT, DiNAT or DiNAT_s attend to.

For each image, OUT_DIR/NAME.png has a row of panels per point:

  window             the k x k neighbors of the token under the point, colored by attention weight.
                     At a border, the window is shifted; dilated windows are spread out. A dotted
                     line in the color bar marks the uniform weight, 1 / (k * k).
  receptive field    how the field grows from the first layer to the chosen one: the color of a
                     pixel is that of the first layer through which it reaches the token. This
                     depends only on windows and convolutions, not on the weights.
  attention rollout  (with --rollout) how strongly each pixel contributes to the token, by the
                     weights of all layers (arXiv 2005.00928).

Images that cannot be read are listed at the end, with exit code 2.
"""

import argparse
from collections.abc import Sequence

from nat_mm.analysis.attention_figure import draw_attention
from nat_mm.analysis.prepared_image import prepare_image
from nat_mm.analysis.windows import default_stage, find_backbone
from nat_mm.commands.arguments import (
    add_config,
    add_config_overrides,
    add_mirror_option,
    check_device,
    make_parser,
)
from nat_mm.commands.drawing import (
    add_drawing_options,
    find_images,
    read_images,
    result_path,
    value_mistakes,
)
from nat_mm.errors import UserError
from nat_mm.inference.inputs import Frame
from nat_mm.inference.load_model import load_model


def parse_point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(','))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f'a point is x,y in pixels of the image, such as 120,80; got {text}'
        ) from error
    return x, y


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument(
        'checkpoint',
        help='checkpoint: a file, a URL or hf://owner/name, or none for random weights',
    )
    parser.add_argument('images', nargs='+', help='images, folders of images, or globs in quotes')
    parser.add_argument(
        '--point',
        dest='points',
        type=parse_point,
        action='append',
        metavar='X,Y',
        help='point in pixels of the image; may be repeated. Default: the center, the middle of '
        'the left border and the lower right corner',
    )
    parser.add_argument(
        '--stage',
        type=int,
        help='stage, counted from 0, or from the last one if negative. Default: the last stage '
        'whose windows span at most half of the image',
    )
    parser.add_argument(
        '--block',
        type=int,
        default=-1,
        help='layer in the stage, counted from 0, or from the last one if negative. Default: the '
        'last',
    )
    parser.add_argument(
        '--head', type=int, help='attention head, counted from 0; default: the mean over all heads'
    )
    parser.add_argument('--rollout', action='store_true', help='also draw attention rollout')
    add_drawing_options(parser, out_dir='attention')
    add_mirror_option(parser)
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def points_of(
    frame: Frame, given: Sequence[tuple[float, float]] | None
) -> Sequence[tuple[float, float]]:
    """Returns the given points, or default ones that show windows inside and at the borders."""
    height, width = frame.image.shape[:2]
    for x, y in given or ():
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f'--point {x:g},{y:g} must lie in {frame.file_name}, x below {width} and y below '
                f'{height}, both from 0'
            )
    return given or [(width / 2, height / 2), (0, height / 2), (width - 1, height - 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_device(arguments.device)
    images = find_images(arguments.images, arguments.out_dir)
    model = load_model(
        arguments.config,
        arguments.checkpoint,
        device=arguments.device,
        overrides=arguments.cfg_options,
        mirror=arguments.mirror,
    )
    with value_mistakes(arguments.config):
        backbone = find_backbone(model.module)
    for frame in read_images(images, model.loader):
        points = points_of(frame, arguments.points)
        with value_mistakes(frame.file_name):
            prepared = prepare_image(
                model.module, model.config, frame, short_side=arguments.short_side
            )
            stage = arguments.stage
            if stage is None:
                stage = default_stage(backbone, prepared.tensor, block=arguments.block)
            draw_attention(
                backbone,
                prepared,
                result_path(arguments.out_dir, frame.name),
                points=[prepared.to_tensor(point) for point in points],
                stage=stage,
                block=arguments.block,
                head=arguments.head,
                rollout=arguments.rollout,
            )
    print(f'drawings are in {arguments.out_dir}')
