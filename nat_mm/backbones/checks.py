"""Checks of what the backbones are given."""

from collections.abc import Sequence

import torch

from nat_mm.backbones.architecture import is_list
from nat_mm.ops.validation import check_int

SMALLEST_INPUT = 32
"""Least height and width of images in pixels."""


def check_out_indices(out_indices: Sequence[int], count: int, *, of: str) -> None:
    """Raises unless the indices are different and increase, from 0 to ``count - 1``."""
    wanted = f'a list of different {of} from 0 to {count - 1} in increasing order'
    if not is_list(out_indices):
        raise TypeError(f'out_indices must be {wanted}, got {out_indices!r}')
    for index in out_indices:
        check_int('every entry of out_indices', index, minimum=0)
    if (
        not out_indices
        or max(out_indices) >= count
        or sorted(set(out_indices)) != list(out_indices)
    ):
        raise ValueError(f'out_indices must be {wanted}, got {list(out_indices)}')


def check_frozen(frozen: int, count: int, *, of: str) -> None:
    """Raises unless ``frozen_stages`` or ``frozen_layers`` is from -1 to ``count``."""
    check_int(f'frozen_{of}', frozen, minimum=-1)
    if frozen > count:
        raise ValueError(
            f'frozen_{of} must be from -1 (nothing) over 0 (tokenizer) to {count} (all {of}), '
            f'got {frozen}'
        )


def check_image(image: torch.Tensor, in_channels: int) -> None:
    """Raises unless images are a tensor ``[B, in_channels, H, W]``, with H and W at least 32."""
    if not isinstance(image, torch.Tensor):
        raise TypeError(
            f'the backbone takes images [B, {in_channels}, H, W] as a tensor, '
            f'got {type(image).__name__}'
        )
    if image.ndim != 4 or image.shape[1] != in_channels:
        raise ValueError(
            f'the backbone takes images [B, {in_channels}, H, W], got shape {list(image.shape)}'
        )
    if min(image.shape[2:]) < SMALLEST_INPUT:
        raise ValueError(
            f'images must be at least {SMALLEST_INPUT} x {SMALLEST_INPUT}, '
            f'got {image.shape[2]} x {image.shape[3]} (H x W)'
        )
