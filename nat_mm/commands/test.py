"""Tests a detector, segmentor or classifier."""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nat_mm.analysis.class_report import class_report
from nat_mm.checkpoints import mirrors_first, read_before
from nat_mm.commands.arguments import (
    add_config,
    add_mirror_option,
    add_no_check,
    add_opacity_option,
    add_run_options,
    export_local_rank,
)
from nat_mm.commands.checking import require_sound_data
from nat_mm.commands.misfits import misfits_explained
from nat_mm.config.building import known_arguments
from nat_mm.config.datasets import find_inner
from nat_mm.config.objects import find_class, type_name
from nat_mm.config.reading import load_config
from nat_mm.data.broken_samples import loading_mistakes
from nat_mm.data.paths import find_evaluators
from nat_mm.errors import UserError
from nat_mm.files import check_folder
from nat_mm.inference.checkpoint import (
    check_checkpoint_fits,
    check_order_of_classes,
    read_for_model,
)
from nat_mm.inference.drawing import SCORE_THRESHOLD, check_opacity
from nat_mm.inference.evaluation_files import DrawingHook, LabelImageHook, PredictionsHook
from nat_mm.inference.images import check_not_overwritten
from nat_mm.inference.visualizer import replace_visualizer
from nat_mm.training.first_pass import first_pass_mistakes
from nat_mm.training.launcher import is_main_process, prepare_launcher
from nat_mm.training.runner import build_loop, build_runner
from nat_mm.training.work_dir import Start, disk_mistakes, untouched_before_start

TOOLBOX_HOOKS = ('DetVisualizationHook', 'SegVisualizationHook', 'VisualizationHook')


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint: a file, a URL or hf://owner/name')
    parser.add_argument(
        '--out',
        help='where to save the predictions: a folder of label images for a segmentor, otherwise '
        'a .pkl file',
    )
    parser.add_argument('--show', action='store_true', help='show each prediction in a window')
    parser.add_argument(
        '--show-dir',
        help="folder for drawings of the predictions, with the subfolders of the dataset's images",
    )
    add_opacity_option(parser)
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds to show each image with --show; default: %(default)s',
    )
    parser.add_argument('--tta', action='store_true', help='use test-time augmentation')
    add_mirror_option(parser)
    add_no_check(parser)
    add_run_options(parser)
    return parser.parse_args(arguments)


def drawing_hook(config: Config, arguments: argparse.Namespace) -> Hook | None:
    """Returns the hook that draws every image; None if the config has a custom hook for that."""
    own = (config.get('default_hooks') or {}).get('visualization') or {}
    if type_name(own, TOOLBOX_HOOKS[0]) in TOOLBOX_HOOKS:
        return DrawingHook(
            arguments.show_dir,
            show=arguments.show,
            wait_time=arguments.wait_time,
            score_threshold=own.get('score_thr', SCORE_THRESHOLD),
        )
    if type_name(own) == 'TrackVisualizationHook':
        raise UserError(
            'mmdetection cannot draw what a tracker finds (its issue 11873): leave out --show and '
            '--show-dir'
        )
    own.update(draw=True, show=arguments.show, wait_time=arguments.wait_time)
    if arguments.show_dir:
        # mmdet would resolve a relative path against the work directory.
        folder = os.path.abspath(arguments.show_dir)
        kind = find_class(HOOKS, own, config)
        known = None if kind is None else known_arguments(kind)
        if known is None or 'test_out_dir' in known:
            own.test_out_dir = folder
        else:
            # mmseg's own hook leaves it to the visualizer where its drawings go.
            config.visualizer = {**(config.get('visualizer') or {}), 'save_dir': folder}
    return None


def predictions_hook(config: Config, out: str) -> PredictionsHook:
    """Returns the hook that writes the predictions of a detector or classifier."""
    model, dump = {
        'mmdet': ('detector', 'DumpDetResults'),
        'mmpretrain': ('classifier', 'DumpResults'),
    }[config.default_scope]
    if not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out of a {model} must end with .pkl or .pickle, got {out}')
    if os.path.isdir(out):
        raise UserError(f'--out {out} is a folder')
    return PredictionsHook(dump, Path(out))


def check_outputs(config: Config, arguments: argparse.Namespace) -> list[str]:
    """Checks that the results can be written, and returns the files and folders of them."""
    check_folder(Path(config.work_dir), name='work dir')
    if arguments.show_dir:
        check_folder(Path(arguments.show_dir), name='--show-dir')
    if arguments.out and config.default_scope == 'mmseg':
        check_folder(Path(arguments.out), name='--out')
    elif arguments.out:
        out = Path(arguments.out)
        check_folder(out.parent, name='--out')
        check_not_overwritten([Path(arguments.config), Path(arguments.checkpoint)], [out])
    return [config.work_dir, *filter(None, (arguments.show_dir, arguments.out))]


def augment(config: Config, arguments: argparse.Namespace) -> None:
    """Wraps the model and replaces the pipeline for test-time augmentation."""
    if not config.get('tta_model') or not config.get('tta_pipeline'):
        raise UserError(f'--tta needs tta_model and tta_pipeline in {arguments.config}')
    if config.default_scope == 'mmdet' and (config.model.get('roi_head') or {}).get('mask_head'):
        print('mmdetection merges only boxes, so --tta does not test the masks')
        config.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
        for _, evaluator in find_evaluators(config, 'test'):
            if type_name(evaluator) == 'CocoMetric':
                evaluator.metric = 'bbox'
    if 'data_preprocessor' in config:
        # Otherwise, mmengine would give it to the wrapper instead of the model inside.
        config.model.setdefault('data_preprocessor', config.pop('data_preprocessor'))
    config.model = ConfigDict(**config.tta_model, module=config.model)
    for _, dataset in find_inner(config, 'test'):
        dataset['pipeline'] = config.tta_pipeline


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_opacity(arguments.opacity, '--opacity')
    export_local_rank(arguments.local_rank)
    config = load_config(
        arguments.config, overrides=arguments.cfg_options, work_dir=arguments.work_dir
    )
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if config.get(key) is None:
            raise UserError(f'{arguments.config} has no {key}, so there is nothing to test')
    config.launcher = arguments.launcher
    config.load_from = arguments.checkpoint
    places = check_outputs(config, arguments)
    hooks = []
    if arguments.show or arguments.show_dir:
        if config.default_scope == 'mmpretrain':
            config.visualizer = config.get('visualizer') or dict(type='UniversalVisualizer')
        elif type_name(config.model) != 'DepthEstimator':  # mmseg's own visualizer draws depths
            replace_visualizer(config, opacity=arguments.opacity)
        hooks.append(drawing_hook(config, arguments))
    if arguments.tta:
        augment(config, arguments)
    if arguments.out and config.default_scope == 'mmseg':
        hooks.append(LabelImageHook(arguments.out))
    elif arguments.out:
        hooks.append(predictions_hook(config, arguments.out))
    prepare_launcher(config)
    if not arguments.no_check and is_main_process(config.launcher):
        require_sound_data(config, splits=['test'], files=False)
    with mirrors_first(arguments.mirror):
        checkpoint = read_for_model(arguments.checkpoint)

    with ExitStack() as stack:
        start = Start()
        if is_main_process(config.launcher):
            untouched = untouched_before_start(config.work_dir, config_file=config.filename)
            start = stack.enter_context(untouched)
        stack.enter_context(disk_mistakes(*places))
        runner = build_runner(config, replace_config=False)
        for hook in filter(None, hooks):
            runner.register_hook(hook, priority='LOW')
        check_checkpoint_fits(runner.model, checkpoint, source=arguments.checkpoint)
        build_loop(runner, 'test')
        check_order_of_classes(
            getattr(runner.test_loop.dataloader.dataset, 'metainfo', {}).get('classes'),
            checkpoint,
            source=arguments.checkpoint,
        )
        with (
            class_report(runner),
            read_before(arguments.checkpoint, checkpoint),
            first_pass_mistakes(runner, on_start=start.note),
            misfits_explained(config),
            loading_mistakes(config),
        ):
            del checkpoint
            runner.test()
