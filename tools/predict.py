"""Predicts pictures with a trained detector, segmentor or classifier, as the config describes.

Writes OUT_DIR/pictures/NAME.jpg, the picture with what was found, and OUT_DIR/results/NAME.json
(objects, boxes, masks; of a classifier the classes) or OUT_DIR/results/NAME.png (the class number
of every pixel).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.device import get_device
from rich.progress import track

from nat_mm.checkpoints import converted_source
from nat_mm.cli.arguments import add_config_overrides
from nat_mm.cli.checkpoint import check_checkpoint_fits, read_checkpoint
from nat_mm.cli.classification_predictor import ClassificationPredictor
from nat_mm.cli.config import load_config
from nat_mm.cli.errors import CommandError, run_command
from nat_mm.cli.pictures import check_not_overwritten, find_pictures, read_picture
from nat_mm.cli.predictor import (
    DetectionPredictor,
    Predictor,
    SegmentationPredictor,
    usable_device,
)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('inputs', nargs='+', help='pictures, or folders of them')
    parser.add_argument('--out-dir', default='predictions', help='folder for the results')
    parser.add_argument('--device', default=get_device(), help='such as cpu or cuda:0')
    parser.add_argument('--batch-size', type=int, default=1, help='pictures predicted at once')
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        help='lowest score of the objects that are drawn and written, from 0 to 1',
    )
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    if not usable_device(arguments.device):
        raise CommandError(
            f'--device {arguments.device} is unknown or not available here; {get_device()} is'
        )
    if arguments.batch_size < 1:
        raise CommandError(f'--batch-size must be at least 1, got {arguments.batch_size}')
    if not 0 <= arguments.score_threshold <= 1:
        raise CommandError(
            f'--score-threshold must be from 0 to 1, got {arguments.score_threshold}'
        )


def load_predictor(arguments: argparse.Namespace) -> Predictor:
    checkpoint = read_checkpoint(arguments.checkpoint)
    config = load_config(arguments.config, overrides=arguments.cfg_options)
    weights = converted_source(arguments.checkpoint)
    places = {'device': arguments.device, 'out_dir': Path(arguments.out_dir)}
    if config.default_scope == 'mmdet':
        predictor = DetectionPredictor(
            config, weights, score_threshold=arguments.score_threshold, **places
        )
    elif config.default_scope == 'mmpretrain':
        predictor = ClassificationPredictor(config, weights, **places)
    else:
        predictor = SegmentationPredictor(config, weights, **places)
    check_checkpoint_fits(predictor.inferencer.model, checkpoint, source=arguments.checkpoint)
    return predictor


def batches(
    pictures: Sequence[Path], batch_size: int, unreadable: list[Path]
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Reads pictures in batches of one shape, as mmseg needs; notes what is no picture."""
    batch = []
    for picture in track(pictures, description='Predicting'):
        image = read_picture(picture)
        if image is None:
            unreadable.append(picture)
            continue
        if batch and (len(batch) == batch_size or image.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((picture, image))
    if batch:
        yield batch


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    pictures = find_pictures(arguments.inputs)
    predictor = load_predictor(arguments)
    outputs = [output for picture in pictures for output in predictor.outputs(picture)]
    check_not_overwritten(pictures, outputs)
    unreadable = []
    for batch in batches(pictures, arguments.batch_size, unreadable):
        predictor.predict(batch)
    predicted = len(pictures) - len(unreadable)
    if predicted:
        print(f'results of {predicted} pictures are in {arguments.out_dir}')
    if unreadable:
        raise CommandError(
            f'{len(unreadable)} of {len(pictures)} inputs are no pictures that can be read: '
            f'{", ".join(map(str, unreadable))}'
        )


if __name__ == '__main__':
    run_command(main)
