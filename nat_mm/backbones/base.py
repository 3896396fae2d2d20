"""Common base of NAT, DiNAT and their variants: stage loop, output norms, freezing, loading."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Self

import torch
from mmengine.model import BaseModule
from torch import nn
from torch.utils.checkpoint import checkpoint

from nat_mm.backbones.architecture import Architecture, resolve_architecture
from nat_mm.backbones.checks import check_frozen, check_image, check_out_indices
from nat_mm.checkpoints.loading import adapt_state_dict, pretrained_weights
from nat_mm.layers import (
    ConvDownsampler,
    ConvTokenizer,
    NATLayer,
    PatchMerging,
    PatchTokenizer,
)
from nat_mm.ops.validation import check_bool, check_int, check_probability

TOKENIZERS = {'convolution': ConvTokenizer, 'patch': PatchTokenizer}
"""Overlapping convolutions as in NAT, and patches as in Swin."""

DOWNSAMPLERS = {'convolution': ConvDownsampler, 'patch': PatchMerging}


class FreezableBackbone(BaseModule):
    """A backbone that keeps parts frozen and reports mismatches of a pretrained checkpoint."""

    in_channels: int
    out_indices: tuple[int, ...]
    patch_embed: nn.Module
    pos_drop: nn.Module

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, except for frozen parts, which stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def init_weights(self) -> None:
        """Initializes as ``init_cfg`` specifies, reporting mismatches of a pretrained checkpoint.

        Raises:
            PretrainedError: If the checkpoint cannot be loaded.
        """
        with pretrained_weights(self.init_cfg):
            super().init_weights()

    def _frozen_modules(self) -> Iterator[nn.Module]:
        raise NotImplementedError

    def _first_modules(
        self, parts: Sequence[nn.Module] | nn.ModuleList, count: int
    ) -> Iterator[nn.Module]:
        """Yields the tokenizer and the first parts with their output norms; nothing if -1."""
        if count >= 0:
            yield self.patch_embed
            yield self.pos_drop
        for index in range(count):
            yield parts[index]
            if index in self.out_indices:
                yield getattr(self, f'norm{index}')

    def _complete(self, *, unused: Iterable[nn.Module]) -> None:
        """Initializes the layers once all exist, and stops training what is frozen or unused."""
        self.register_load_state_dict_pre_hook(adapt_state_dict)
        self.apply(_init_linear)
        for module in (*self._frozen_modules(), *unused):
            module.requires_grad_(False)
        self.train()

    def _output(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """Normalizes an output, ``[B, H, W, C]`` to ``[B, C, H, W]``, contiguous."""
        # mmcv's compiled RoIAlign misreads non-contiguous maps, and a neck's convolutions preserve
        # their input's memory format.
        return getattr(self, f'norm{index}')(x).permute(0, 3, 1, 2).contiguous()


class NeighborhoodBackbone(FreezableBackbone):
    """Hierarchical vision transformer of neighborhood attention layers.

    A subclass defines its architectures, its tokenizer and its downsampler.

    Args:
        arch: Name of a published architecture, whose values the other arguments override. Without
            it, ``embed_dim``, ``depths`` and ``num_heads`` must be given.
        embed_dim: Channels C of the first stage; stage i has ``C * 2**i``.
        depths: Number of layers of each stage.
        num_heads: Number of attention heads of each stage; must divide its channels.
        kernel_size: Odd window length, at least 3; defaults to 7 without ``arch``.
        dilations: For each stage, the dilation of each of its layers.
        mlp_ratio: Hidden channels of the MLPs as a multiple of the stage's channels; defaults to 3
            without ``arch``.
        qkv_bias: Whether the projections to query, key and value have a bias.
        drop_rate: Dropout probability of tokens, attention output and MLPs, in [0, 1).
        drop_path_rate: Stochastic depth rate of the last layer, in [0, 1), rising linearly from 0
            at the first; defaults to 0 without ``arch``.
        layer_scale: Initial value of the learned residual scales; False for none, even if the
            architecture has them; without ``arch``, none by default.
        in_channels: Number of image channels.
        out_indices: Stages whose normalized output is returned, in increasing order. Stages after
            the last one listed are neither run nor trained.
        frozen_stages: -1 freezes nothing, 0 the tokenizer, i > 0 also the first i stages with their
            downsamplers and output norms. Frozen parts are not trained and stay in eval mode.
        with_cp: Whether to save memory in training by recomputing each layer in the backward pass
            (activation checkpointing).
        attention: What tokens attend to, one of ``nat_mm.layers.ATTENTION_PATTERNS``. The papers
            use the default. 'sasa', 'shifted_window' (shifted in every second layer of a stage) and
            'full' are meant for comparison and have the same parameters. The last two do not
            support dilation.
        tokenizer: 'convolution' for NAT's overlapping convolutions, 'patch' for Swin's patches;
            None for the default of the model family.
        downsampler: 'convolution' or 'patch', as for the tokenizer.
        attention_backend: Backend of :func:`nat_mm.ops.neighborhood_attention_2d`.
        init_cfg: mmengine initialization config. ``dict(type='Pretrained', checkpoint=...)``
            accepts a checkpoint of a classifier, detector or segmentor, with or without
            ``prefix='backbone.'``; see :func:`nat_mm.checkpoints.load_pretrained`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an invalid value; the message says what is valid.
    """

    init_cfg: dict | list[dict] | None
    architectures: ClassVar[Mapping[str, Architecture]]
    stages_name: ClassVar[str]
    """Name of the list of stages in parameter names."""
    dilated: ClassVar[bool] = False
    """Whether the model family has dilations."""

    def __init__(
        self,
        *,
        arch: str | None = None,
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        kernel_size: int | None = None,
        dilations: Sequence[Sequence[int]] | None = None,
        mlp_ratio: float | None = None,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        layer_scale: float | bool | None = None,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        attention: str = 'neighborhood',
        tokenizer: str | None = None,
        downsampler: str | None = None,
        attention_backend: str = 'auto',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if dilations is not None and not self.dilated:
            raise ValueError(f'{type(self).__name__} takes no dilations; DiNAT and DiNAT_s do')
        architecture = resolve_architecture(
            arch,
            self.architectures,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            kernel_size=kernel_size,
            dilations=dilations,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            layer_scale=layer_scale,
        )
        if self.dilated and architecture.dilations is None:
            raise ValueError(f'{type(self).__name__} without arch needs dilations')
        num_stages = len(architecture.depths)
        check_int('in_channels', in_channels, minimum=1)
        check_probability('drop_rate', drop_rate)
        check_bool('with_cp', with_cp)
        check_out_indices(out_indices, num_stages, of='stages')
        check_frozen(frozen_stages, num_stages, of='stages')
        self.in_channels = in_channels
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages

        make_tokenizer = _choose('tokenizer', tokenizer, TOKENIZERS, own=self.make_tokenizer)
        make_downsampler = _choose(
            'downsampler', downsampler, DOWNSAMPLERS, own=self.make_downsampler
        )
        self.patch_embed = make_tokenizer(in_channels, architecture.embed_dim)
        self.pos_drop = nn.Dropout(drop_rate)
        stages = nn.ModuleList()
        for index, channels in enumerate(architecture.channels):
            layers = [
                NATLayer(
                    channels,
                    architecture.num_heads[index],
                    kernel_size=architecture.kernel_size,
                    dilation=dilation,
                    mlp_ratio=architecture.mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop_rate=drop_rate,
                    drop_path_rate=rate,
                    layer_scale=architecture.layer_scale,
                    attention=attention,
                    shifted=attention == 'shifted_window' and block % 2 == 1,
                    attention_backend=attention_backend,
                )
                for block, (dilation, rate) in enumerate(
                    zip(
                        architecture.stage_dilations(index),
                        architecture.drop_path_rates(index),
                        strict=True,
                    )
                )
            ]
            is_last = index == num_stages - 1
            downsample = None if is_last else make_downsampler(channels)
            stages.append(Stage(layers, downsample=downsample, with_cp=with_cp))
        self.add_module(self.stages_name, stages)
        for index in self.out_indices:
            self.add_module(f'norm{index}', nn.LayerNorm(architecture.channels[index]))

        self._complete(unused=self._unused_modules())

    def make_tokenizer(self, in_channels: int, embed_dim: int) -> nn.Module:
        """Creates the module that maps ``[B, in_channels, H, W]`` to channels-last tokens."""
        raise NotImplementedError

    def make_downsampler(self, channels: int) -> nn.Module:
        """Creates the module that maps ``[B, H, W, C]`` to the next stage's ``[B, H', W', 2C]``."""
        raise NotImplementedError

    @property
    def stages(self) -> 'Sequence[Stage]':
        """The stages, in order."""
        return getattr(self, self.stages_name)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Returns how deep a parameter is, for learning rates that decay from layer to layer.

        Args:
            param_name: Name of a parameter of the model.
            prefix: What the names of this backbone's parameters begin with, such as ``backbone.``.

        Returns:
            Its depth and the number of depths: 0 for the tokenizer, 1 for the first layer, and so
            on over all stages. A downsampler has the depth of the layer before it. Output norms,
            which no classifier has, and what is not in the backbone have the last depth.
        """
        stage, layer = self._locate(param_name, prefix)
        depths = [len(each.blocks) for each in self.stages]
        return 1 + sum(depths[: max(0, stage)]) + layer, sum(depths) + 2

    def get_stage_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Like `get_layer_depth`, with the same depth for all layers of a stage."""
        stage, _ = self._locate(param_name, prefix)
        return 1 + stage, len(self.stages) + 2

    def _locate(self, param_name: str, prefix: str) -> tuple[int, int]:
        """Returns the stage and layer of a parameter.

        They are -1 and -1 for the tokenizer, and those after the last stage for all else.
        """
        owner, *place = split_own_name(param_name, prefix)
        if owner == 'patch_embed':
            return -1, -1
        if owner == self.stages_name:
            stage, part, layer = int(place[0]), place[1], place[2]
            return stage, int(layer) if part == 'blocks' else len(self.stages[stage].blocks) - 1
        return len(self.stages), 0

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Computes the feature maps.

        Args:
            image: Batch of images, ``[B, in_channels, H, W]``, with H and W at least 32.

        Returns:
            For each stage in ``out_indices``, its normalized output ``[B, C_i, H_i, W_i]``,
            contiguous, with ``H_i = ceil(H / (4 * 2**i))``.

        Raises:
            TypeError: If the image is not a tensor.
            ValueError: If the image has an unsupported shape.
        """
        check_image(image, self.in_channels)
        x = self.pos_drop(self.patch_embed(image))
        outputs = []
        downsample: nn.Module | None = None
        for index, stage in enumerate(self.stages[: self.out_indices[-1] + 1]):
            if downsample is not None:
                x = downsample(x)
            x = stage(x)
            downsample = stage.downsample
            if index in self.out_indices:
                outputs.append(self._output(index, x))
        return tuple(outputs)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        return self._first_modules(self.stages, self.frozen_stages)

    def _unused_modules(self) -> Iterator[nn.Module]:
        last = self.out_indices[-1]
        downsample = self.stages[last].downsample
        if downsample is not None:
            yield downsample
        yield from self.stages[last + 1 :]


class Stage(nn.Module):
    """Layers at one resolution, then optionally a downsampler.

    Args:
        layers: The layers, each mapping ``[B, H, W, C]`` to the same shape.
        downsample: Maps ``[B, H, W, C]`` to the next stage's input; None for the last stage.
        with_cp: Whether to save memory in training by recomputing each layer in the backward pass
            (activation checkpointing).
    """

    def __init__(
        self,
        layers: Sequence[NATLayer],
        *,
        downsample: nn.Module | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(layers)
        self.downsample = downsample
        self.with_cp = with_cp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Runs the layers but not the downsampler, mapping ``[B, H, W, C]`` to the same shape."""
        for layer in self.blocks:
            x = run_layer(layer, x, with_cp=self.with_cp)
        return x


def run_layer(layer: nn.Module, x: torch.Tensor, *, with_cp: bool) -> torch.Tensor:
    """Runs a layer, and recomputes it in the backward pass if it should save memory."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(layer, x, use_reentrant=False)
    return layer(x)


def split_own_name(param_name: str, prefix: str) -> list[str]:
    """Splits a parameter's name behind the prefix of its backbone; ``['']`` if it is elsewhere."""
    return param_name[len(prefix) :].split('.') if param_name.startswith(prefix) else ['']


def _init_linear(module: nn.Module) -> None:
    """Initializes linear layers as usual in transformers: small weights, zero bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _choose(
    argument: str,
    name: str | None,
    known: Mapping[str, type[nn.Module]],
    *,
    own: Callable[..., nn.Module],
) -> Callable[..., nn.Module]:
    """Looks up the constructor of a part; ``own`` if ``name`` is None."""
    if name is None:
        return own
    if not isinstance(name, str) or name not in known:
        raise ValueError(f'{argument} must be one of {", ".join(known)} or None, got {name!r}')
    return known[name]


def image_channels(model: nn.Module) -> int:
    """Returns how many channels a model's images have: its nat_mm backbone's, or 3 without one."""
    backbones = (module for module in model.modules() if isinstance(module, FreezableBackbone))
    return next((backbone.in_channels for backbone in backbones), 3)
