"""Isotropic NAT, DiNAT and ViT-rpb (arXiv 2209.15001), which have a single resolution."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from nat_mm.backbones.architecture import IsotropicArchitecture, resolve_architecture
from nat_mm.backbones.base import FreezableBackbone, run_layer, split_own_name
from nat_mm.backbones.checks import check_frozen, check_image, check_out_indices
from nat_mm.layers import NATLayer, PatchTokenizer
from nat_mm.ops.validation import check_bool, check_int, check_probability

_SIZES: dict[str, dict[str, Any]] = {
    'small': dict(embed_dim=384, num_heads=12, drop_path_rate=0.1),
    'base': dict(embed_dim=768, num_heads=24, drop_path_rate=0.4),
}
_PATTERNS: dict[str, dict[str, Any]] = {
    'nat': dict(kernel_size=7),
    'dinat': dict(kernel_size=7, dilations=(1, 2) * 6),
    'vitrpb': {},
}
ISOTROPIC_ARCHITECTURES = {
    f'{pattern}_{size}': IsotropicArchitecture(depth=12, **_SIZES[size], **_PATTERNS[pattern])
    for pattern in _PATTERNS
    for size in _SIZES
}


@MODELS.register_module()
class NATIsotropic(FreezableBackbone):
    """Vision transformer with a single resolution and either neighborhood or full attention.

    A 16x16 convolution creates the tokens, and all layers have the same width. There are no
    position embeddings, only relative positional biases. Since there is no pyramid of resolutions,
    detectors build one from the last layer, as in ViTDet; see
    :class:`nat_mm.backbones.SimpleFeaturePyramid`.

    Parameters have the same names as in the released classifiers, except for the last norm, which
    is called ``norm`` there.

    Args:
        arch: Name of a published architecture, whose values the other arguments override:
            ``nat_small``, ``nat_base``, ``dinat_small``, ``dinat_base``, ``vitrpb_small`` or
            ``vitrpb_base``. Without it, ``embed_dim``, ``depth`` and ``num_heads`` must be given.
        embed_dim: Channels C of all layers.
        depth: Number of layers.
        num_heads: Number of attention heads of each layer; must divide C.
        kernel_size: Odd window length, at least 3, or None for attention to the whole map; defaults
            to None without ``arch``. To get None with ``arch``, choose a ``vitrpb`` architecture.
        dilations: The dilation of each layer; defaults to 1 everywhere without ``arch``. Must not
            be given without ``kernel_size``.
        map_size: Height and width, in tokens, of the maps for which the biases of attention to the
            whole map are exact: 14 for the published 224x224 images. For maps of other sizes, the
            biases are interpolated, as they are when a backbone with another ``map_size`` loads
            these weights.
        mlp_ratio: Hidden channels of the MLPs as a multiple of C.
        qkv_bias: Whether the projections to query, key and value have a bias.
        drop_rate: Dropout probability of tokens, attention output and MLPs, in [0, 1).
        drop_path_rate: Stochastic depth rate of the last layer, in [0, 1), rising linearly from 0
            at the first; defaults to 0 without ``arch``.
        patch_size: Height and width of a token in pixels.
        in_channels: Number of image channels.
        out_indices: Layers whose normalized output is returned, counted from 0, in increasing
            order; None for the last. Layers after the last one listed are neither run nor trained.
        frozen_layers: -1 freezes nothing, 0 the tokenizer, i > 0 also the first i layers with their
            output norms. Frozen parts are not trained and stay in eval mode.
        with_cp: Whether to save memory in training by recomputing each layer in the backward pass
            (activation checkpointing).
        attention_backend: Backend of :func:`nat_mm.ops.neighborhood_attention_2d`.
        init_cfg: mmengine initialization config. ``dict(type='Pretrained', checkpoint=...)``
            accepts a released classifier; see :func:`nat_mm.checkpoints.load_pretrained`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an invalid value; the message says what is valid.
    """

    init_cfg: dict | list[dict] | None

    def __init__(
        self,
        *,
        arch: str | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        kernel_size: int | None = None,
        dilations: Sequence[int] | None = None,
        map_size: int = 14,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        patch_size: int = 16,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        frozen_layers: int = -1,
        with_cp: bool = False,
        attention_backend: str = 'auto',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        architecture = resolve_architecture(
            arch,
            ISOTROPIC_ARCHITECTURES,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            kernel_size=kernel_size,
            dilations=dilations,
            drop_path_rate=drop_path_rate,
        )
        embed_dim, depth = architecture.embed_dim, architecture.depth
        check_int('patch_size', patch_size, minimum=1)
        check_int('in_channels', in_channels, minimum=1)
        check_frozen(frozen_layers, depth, of='layers')
        check_probability('drop_rate', drop_rate)
        check_bool('with_cp', with_cp)
        if out_indices is not None:
            check_out_indices(out_indices, depth, of='layers')
        self.in_channels = in_channels
        self.out_indices = (depth - 1,) if out_indices is None else tuple(out_indices)
        self.frozen_layers = frozen_layers
        self.with_cp = with_cp

        self.patch_embed = PatchTokenizer(in_channels, embed_dim, patch_size=patch_size)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()
        kernel_size = architecture.kernel_size
        for dilation, rate in zip(
            architecture.layer_dilations, architecture.drop_path_rates(), strict=True
        ):
            layer = NATLayer(
                embed_dim,
                architecture.num_heads,
                kernel_size=map_size if kernel_size is None else kernel_size,
                dilation=dilation,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                drop_rate=drop_rate,
                drop_path_rate=rate,
                attention='full' if kernel_size is None else 'neighborhood',
                attention_backend=attention_backend,
            )
            self.layers.append(layer)
        for index in self.out_indices:
            self.add_module(f'norm{index}', nn.LayerNorm(embed_dim))

        self._complete(unused=self.layers[self.out_indices[-1] + 1 :])

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Returns how deep a parameter is, for learning rates that decay from layer to layer.

        See :meth:`nat_mm.backbones.base.NeighborhoodBackbone.get_layer_depth`.
        """
        count = len(self.layers) + 2
        owner, *place = split_own_name(param_name, prefix)
        if owner == 'patch_embed':
            return 0, count
        if owner == 'layers':
            return int(place[0]) + 1, count
        return count - 1, count

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Computes the feature maps.

        Args:
            image: Batch of images, ``[B, in_channels, H, W]``, with H and W at least 32. Incomplete
                patches are padded with zeros.

        Returns:
            For each layer in ``out_indices``, its normalized output
            ``[B, C, ceil(H / patch_size), ceil(W / patch_size)]``, contiguous.

        Raises:
            TypeError: If the image is not a tensor.
            ValueError: If the image has an unsupported shape.
        """
        check_image(image, self.in_channels)
        x = self.pos_drop(self.patch_embed(image))
        outputs = []
        for index, layer in enumerate(self.layers[: self.out_indices[-1] + 1]):
            x = run_layer(layer, x, with_cp=self.with_cp)
            if index in self.out_indices:
                outputs.append(self._output(index, x))
        return tuple(outputs)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        return self._first_modules(self.layers, self.frozen_layers)
