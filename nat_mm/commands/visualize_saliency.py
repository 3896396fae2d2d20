"""Draws how strongly each pixel affects the output of one or more models.

  nat-mm visualize-saliency IMAGE... \\
      --model NAT nat_tiny_in1k_224 nat_tiny.pth \\
      --model Swin mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py swin_tiny.pth

For each image, OUT_DIR/NAME.png shows the image and, for each model, the magnitude of a gradient at
each pixel (arXiv 1312.6034): the gradient of a classifier's highest logit, or of the norm of a
detector's or segmentor's last feature map. The NAT paper (arXiv 2204.07143, appendix) compares NAT
with Swin and ViT in this way. Each map has its own color scale. For two models, the difference is
drawn, too.

Images that cannot be read are listed at the end, with exit code 2.
"""

import argparse
from collections.abc import Sequence

from nat_mm.analysis.prepared_image import prepare_image
from nat_mm.analysis.saliency import Saliency, draw_saliency, saliency
from nat_mm.commands.arguments import add_mirror_option, check_counts, check_device, make_parser
from nat_mm.commands.drawing import (
    add_drawing_options,
    find_images,
    read_images,
    result_path,
    value_mistakes,
)
from nat_mm.errors import UserError
from nat_mm.inference.inputs import read_all
from nat_mm.inference.load_model import load_model


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('images', nargs='+', help='images, folders of images, or globs in quotes')
    parser.add_argument(
        '--model',
        dest='models',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='a model with any backbone; may be repeated. CONFIG is a file or a config of an '
        'installed package, such as mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py; CHECKPOINT '
        'is a file, a URL, hf://owner/name, or none for random weights',
    )
    parser.add_argument(
        '--samples',
        type=int,
        default=1,
        help='average the gradients of this many noisy copies of the image (SmoothGrad, '
        'arXiv 1706.03825); default: %(default)s, without noise',
    )
    add_mirror_option(parser)
    add_drawing_options(parser, out_dir='saliency')
    return parser.parse_args(arguments)


def title(name: str, found: Saliency, classes: Sequence[str] | None) -> str:
    """Returns the model's name, followed by the predicted class for a classifier."""
    if found.label is None:
        return name
    return f'{name}: {classes[found.label] if classes else f"class {found.label}"}'


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_device(arguments.device)
    check_counts(arguments, 'samples')
    names = [name for name, _, _ in arguments.models]
    if len(set(names)) < len(names):
        raise UserError(f'every --model must have another name, got {", ".join(names)}')
    images = find_images(arguments.images, arguments.out_dir)
    models = {
        name: load_model(config, checkpoint, device=arguments.device, mirror=arguments.mirror)
        for name, config, checkpoint in arguments.models
    }
    first = next(iter(models.values()))
    for frame in read_images(images, first.loader):
        drawn = {}
        for name, model in models.items():
            with value_mistakes(f'{frame.file_name}, {name}'):
                loaded = frame
                if not model.loader.loads_like(first.loader):
                    (loaded,) = read_all([frame.medium], model.loader)
                prepared = prepare_image(
                    model.module, model.config, loaded, short_side=arguments.short_side
                )
                found = saliency(model.module, prepared.tensor, samples=arguments.samples)
            drawn[title(name, found, model.classes)] = (prepared, found)
        draw_saliency(frame.image, drawn, result_path(arguments.out_dir, frame.name))
    print(f'drawings are in {arguments.out_dir}')
