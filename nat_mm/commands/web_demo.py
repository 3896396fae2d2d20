"""Serves a page that shows what trained models find in your images.

The page shows boxes and masks, the label map or the most likely classes, with a legend and files to
download. Click the image to see what the token there attends to. The command needs the extra web
(pip install 'nat_mm[web]'), but no internet.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nat_mm.checkpoints import read_before
from nat_mm.commands.arguments import (
    add_device_option,
    add_mirror_option,
    add_opacity_option,
    check_device,
    check_installed,
    make_parser,
)
from nat_mm.commands.running import exit_on_signals, printable
from nat_mm.demo.runs import CONFIGS
from nat_mm.errors import UserError
from nat_mm.inference.drawing import check_opacity
from nat_mm.inference.load_model import load_model
from nat_mm.inference.model import Model
from nat_mm.training.resume import find_last_checkpoint


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        '--model',
        nargs=2,
        action='append',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='config file and checkpoint (a file, a URL or hf://owner/name) of a detector, '
        'segmentor or classifier; may be repeated. Default: the models that nat-mm demo trained',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/demo'),
        help='work dir of nat-mm demo, used without --model; default: %(default)s',
    )
    add_mirror_option(parser)
    add_opacity_option(parser)
    add_device_option(parser)
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; default: %(default)s, which only this computer can reach. With '
        '0.0.0.0, everyone on the network can use the page, without a password',
    )
    parser.add_argument('--port', type=int, default=7860, help='default: %(default)s')
    return parser.parse_args(arguments)


def find_demo_models(work_dir: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Finds config, last checkpoint and its content for each model that nat-mm demo trained."""
    models = []
    for name, config in CONFIGS.items():
        found = find_last_checkpoint(str(work_dir / name), resumable=False)
        if found is not None:
            models.append((str(config), *found))
    if not models:
        raise UserError(
            f'there is no trained model of the demo in {work_dir}: train both with make demo, give '
            'their folder with --work-dir, or other models with --model CONFIG CHECKPOINT'
        )
    return models


def check_arguments(arguments: argparse.Namespace) -> None:
    check_device(arguments.device)
    check_opacity(arguments.opacity, '--opacity')
    if not 1 <= arguments.port <= 65535:
        raise UserError(f'--port must be from 1 to 65535, got {arguments.port}')
    check_installed('gradio', 'skimage', extra='web')


def load_models(arguments: argparse.Namespace) -> dict[str, Model]:
    """Loads the models, by the name on the page."""
    sources = [(*model, None) for model in arguments.model or []]
    sources = sources or find_demo_models(arguments.work_dir)
    stems = [Path(config).stem for config, *_ in sources]
    models = {}
    for number, (source, stem) in enumerate(zip(sources, stems, strict=True), 1):
        config, checkpoint, content = source
        name = stem if stems.count(stem) == 1 else f'{number}: {stem}, {Path(checkpoint).stem}'
        with read_before(checkpoint, content):
            models[printable(name)] = load_model(
                config, checkpoint, device=arguments.device, mirror=arguments.mirror
            )
    return models


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    from nat_mm.web.server import serve

    models = load_models(arguments)
    with serve(models, host=arguments.host, port=arguments.port, opacity=arguments.opacity) as page:
        print(f'{page.local_url} (Ctrl-C to stop)', flush=True)
        exit_on_signals()
        page.wait()
