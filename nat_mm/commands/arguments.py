"""Defines and checks options shared by several commands."""

import argparse
import os
from importlib.util import find_spec

import torch
from mmengine.config import DictAction
from mmengine.device import get_device

from nat_mm.errors import UserError
from nat_mm.inference.drawing import OPACITY

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


class OverrideAction(DictAction):
    """Parses ``key=value`` pairs like mmengine, but reports other arguments as a usage error."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, RecursionError):
            parser.error(f'{option_string} needs pairs such as model.neck.num_outs=5, got {values}')


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Creates a parser that shows a module's docstring with its line breaks."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that mmdet's and mmseg's commands also have.

    Args:
        parser: Parser of the command; it gets ``--work-dir``, ``--cfg-options``, ``--launcher``
            and the ``--local-rank`` that older PyTorch launchers pass.
    """
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints; default: work_dirs/<config name>'
    )
    add_config_overrides(parser)
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='job launcher; default: %(default)s'
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, help=argparse.SUPPRESS)


def add_opacity_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--opacity``."""
    parser.add_argument(
        '--opacity',
        type=float,
        default=OPACITY,
        help='opacity of drawn masks and label maps, from 0 (invisible) to 1 (hides the image); '
        'default: %(default)s',
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``; its default is the device that mmengine would choose."""
    parser.add_argument(
        '--device', default=get_device(), help='such as cpu or cuda:0; default: %(default)s'
    )


def check_device(name: str) -> None:
    """Raises `UserError` if a device is unknown or not available."""
    try:
        torch.ones(1, device=name).cpu().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f'--device {name} is unknown or not available; {get_device()} is available'
        ) from error


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Raises `UserError` if one of the named options is given and below 1."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f'--{name.replace("_", "-")} must be at least 1, got {value}')


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds the positional argument ``config``."""
    parser.add_argument(
        'config', help='config file, nat_mm::PATH, or the name of a model in the model zoo'
    )


def add_config_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds ``--cfg-options``.

    Args:
        parser: Parser of the command.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OverrideAction,
        metavar='KEY=VALUE',
        help='override config values, such as optim_wrapper.optimizer.lr=1e-5 or key="[a,b]"',
    )


def add_mirror_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--mirror``."""
    parser.add_argument(
        '--mirror',
        action='store_true',
        help="download published weights from the authors' repositories on the Hugging Face Hub, "
        'where there is one; without this option, only if their own host does not answer',
    )


def add_no_check(parser: argparse.ArgumentParser) -> None:
    """Adds ``--no-check``.

    Args:
        parser: Parser of the command.
    """
    parser.add_argument(
        '--no-check', action='store_true', help='skip the check of config and data (nat-mm check)'
    )


def check_installed(*packages: str, extra: str) -> None:
    """Checks that the packages of an extra can be imported.

    Args:
        *packages: Names to import.
        extra: The extra of nat_mm that installs them.

    Raises:
        UserError: Some are missing.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f'{", ".join(missing)} {"is" if len(missing) == 1 else "are"} not installed: '
            f"pip install 'nat_mm[{extra}]'"
        )


def export_local_rank(local_rank: int | None) -> None:
    """Sets the rank from the command line in the environment, where mmengine looks for it.

    Args:
        local_rank: Value of ``--local-rank``; an existing ``LOCAL_RANK`` takes precedence.
    """
    if local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
