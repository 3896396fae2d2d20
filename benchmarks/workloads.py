"""Builds both backbones and their workloads."""

from collections.abc import Callable, Sequence

import torch
from mmdet.models import SwinTransformer
from torch import Tensor

from nat_mm.backbones import NAT

# Both as published: window 7, stochastic depth 0.2. For Swin-Tiny, see arXiv 2103.14030.
BACKBONES = {
    'NAT-Tiny': lambda: NAT(arch='tiny'),
    'Swin-Tiny': lambda: SwinTransformer(
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        mlp_ratio=4,
        drop_path_rate=0.2,
    ),
}
SMALL_BACKBONES = {
    'NAT-Tiny': lambda: NAT(embed_dim=16, depths=(1,) * 4, num_heads=(1,) * 4),
    'Swin-Tiny': lambda: SwinTransformer(embed_dims=16, depths=(1,) * 4, num_heads=(1,) * 4),
}
"""Replacements for a trial."""


def make_workload(
    backbone: str, mode: str, dtype: str, shape: Sequence[int], *, quick: bool
) -> Callable[[], object]:
    """Builds a backbone and random images.

    Args:
        backbone: Key of ``BACKBONES``.
        mode: 'inference' or 'training step': forward, backward and a step of AdamW.
        dtype: 'float32', or 'bfloat16' for autocast.
        shape: Shape of the images, [B, 3, H, W].
        quick: Whether to use a small backbone instead.

    Returns:
        A function that does the work once.
    """
    model = (SMALL_BACKBONES if quick else BACKBONES)[backbone]()
    model.train(mode == 'training step')
    images = torch.randn(*shape)
    autocast = torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == 'bfloat16')
    if mode == 'inference':

        def infer() -> None:
            with torch.inference_mode(), autocast:
                model(images)

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = sum(_mean_of_weighted_channels(features) for features in model(images))
        loss.backward()
        optimizer.step()

    return train


def _mean_of_weighted_channels(features: Tensor) -> Tensor:
    """Computes a loss; the plain mean after a LayerNorm would be constant, with zero gradients."""
    weights = torch.linspace(-1, 1, features.shape[1])
    return (features * weights[:, None, None]).mean()
