"""Answers HTTP requests with a trained detector, segmentor or classifier.

  POST /predict   predictions as JSON or PNG; the image is the body or the file of a form
  GET  /model     classes, colors and limits
  GET  /health    whether the server is ready
  GET  /docs      a page to try these endpoints, made from /openapi.json

Images of the same shape that arrive within --max-wait are predicted at once. On SIGTERM or Ctrl-C,
the server answers the requests that have arrived or arrive within 5 s, then exits. It needs the
extra serve (pip install 'nat_mm[serve]'), but no internet. It asks for no password.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nat_mm.commands.arguments import (
    add_config,
    add_config_overrides,
    add_device_option,
    add_mirror_option,
    check_counts,
    check_device,
    check_installed,
    make_parser,
)
from nat_mm.commands.running import exit_on_signals, printable
from nat_mm.errors import UserError
from nat_mm.inference.images import MEGAPIXELS
from nat_mm.inference.load_model import load_model


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint: a file, a URL or hf://owner/name')
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; default: %(default)s, which only this computer can reach. With '
        '0.0.0.0, everyone on the network can use the model, without a password',
    )
    parser.add_argument('--port', type=int, default=8000, help='default: %(default)s')
    add_device_option(parser)
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='largest number of images of the same shape to predict at once; default: %(default)s',
    )
    parser.add_argument(
        '--max-wait',
        type=float,
        default=5,
        metavar='MILLISECONDS',
        help='how long an image waits for others to be predicted with; default: %(default)s',
    )
    parser.add_argument(
        '--queue',
        type=int,
        default=64,
        help='images that may wait for their results; others are refused (503); '
        'default: %(default)s',
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=60,
        metavar='SECONDS',
        help='give up images that take longer (504); default: %(default)s',
    )
    parser.add_argument(
        '--max-megabytes',
        type=float,
        default=20,
        help='refuse larger files (413); default: %(default)s',
    )
    parser.add_argument(
        '--max-megapixels',
        type=float,
        default=MEGAPIXELS,
        help='refuse larger images (413); default: %(default)s',
    )
    add_mirror_option(parser)
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    check_installed('fastapi', 'fastapi_offline', 'uvicorn', 'python_multipart', extra='serve')
    check_device(arguments.device)
    if not 1 <= arguments.port <= 65535:
        raise UserError(f'--port must be from 1 to 65535, got {arguments.port}')
    check_counts(arguments, 'batch_size', 'queue')
    if not 0 <= arguments.max_wait <= 10_000:
        raise UserError(f'--max-wait must be from 0 to 10000, got {arguments.max_wait:g}')
    for name in ('timeout', 'max_megabytes', 'max_megapixels'):
        if not 0 < getattr(arguments, name) < float('inf'):
            option = f'--{name.replace("_", "-")}'
            raise UserError(f'{option} must be above 0, got {getattr(arguments, name):g}')


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    from nat_mm.serving.app import build_app
    from nat_mm.serving.intake import Limits
    from nat_mm.serving.running import listen, local_address, served, wait_for

    limits = Limits(
        batch_size=arguments.batch_size,
        max_wait=arguments.max_wait / 1000,
        queue=arguments.queue,
        timeout=arguments.timeout,
        megabytes=arguments.max_megabytes,
        megapixels=arguments.max_megapixels,
    )
    with listen(arguments.host, arguments.port) as listener:
        model = load_model(
            arguments.config,
            arguments.checkpoint,
            device=arguments.device,
            overrides=arguments.cfg_options,
            mirror=arguments.mirror,
        )
        app = build_app(model, limits, name=printable(Path(arguments.config).stem))
        # Requests that have arrived are answered or given up within the timeout.
        with served(app, listener, last_seconds=int(limits.timeout) + 1) as ended:
            print(f'{local_address(listener)}docs (Ctrl-C to stop)', flush=True)
            exit_on_signals()
            wait_for(ended)
