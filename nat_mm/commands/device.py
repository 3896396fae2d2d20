"""Defines the option ``--device`` of the commands."""

import argparse

import torch
from mmengine.device import get_device

from nat_mm.errors import UserError


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
