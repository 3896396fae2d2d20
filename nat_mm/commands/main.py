"""Implements the console script ``nat-mm``, which runs a command by name."""

import sys
from importlib import import_module

from nat_mm import __version__
from nat_mm.commands.running import run_command

COMMANDS = {
    'check': 'check a config and its data before training',
    'train': 'train a detector, segmentor or classifier',
    'test': 'test a checkpoint on a dataset',
    'predict': 'predict images, videos or a camera stream',
    'serve': 'answer HTTP requests with a model',
    'web-demo': 'serve a page that shows predictions and attention',
    'browse-dataset': 'draw the batches that a model sees in training',
    'plot-logs': 'plot losses and metrics of training runs',
    'get-flops': 'count FLOPs and parameters by module',
    'analyze': 'compare attention patterns and the saliency of checkpoints',
    'visualize-attention': 'draw attention windows and receptive fields',
    'visualize-saliency': 'draw how strongly each pixel affects the output',
    'convert-checkpoint': 'convert checkpoints between layouts',
    'convert-labels': 'convert label images to PNGs of class numbers',
    'export': 'export a model or a backbone to ONNX',
    'convert-annotations': 'convert VOC, YOLO or labelme annotations to COCO',
    'make-scenes': 'write a small generated dataset',
    'demo': 'train, test and draw the demo models',
}


def main() -> None:
    """Runs the command named by the first argument; ``nat-mm --help`` lists them."""
    run_command(_run)


def _run() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(_usage())
    elif name == '--version':
        print(f'nat_mm {__version__}')
    elif name in COMMANDS:
        command = import_module(f'nat_mm.commands.{name.replace("-", "_")}')
        # argparse shows the first entry as the program's name.
        sys.argv[:2] = [f'nat-mm {name}']
        command.main()
    else:
        print(f'error: {name!r} is not a command\n\n{_usage()}', file=sys.stderr)
        sys.exit(2)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {summary}' for name, summary in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: nat-mm COMMAND [arguments]',
            '',
            *lines,
            '',
            'nat-mm COMMAND --help lists the options of a command.',
        ]
    )
