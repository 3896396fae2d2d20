"""Hyper-parameters that define an architecture, and their checks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nat_mm.ops.validation import (
    check_int,
    check_positive,
    check_probability,
    check_window_length,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Hyper-parameters of a hierarchical backbone, checked on construction.

    Attributes:
        embed_dim: Channels of the first stage; stage i has ``embed_dim * 2**i``.
        depths: Number of layers of each stage.
        num_heads: Number of attention heads of each stage; must divide its channels.
        kernel_size: Odd window length of neighborhood attention, at least 3.
        dilations: For each stage, the dilation of each of its layers; None for 1 everywhere.
        mlp_ratio: Hidden channels of the MLPs as a multiple of the stage's channels.
        drop_path_rate: Stochastic depth rate of the last layer, in [0, 1), rising linearly from 0.
        layer_scale: Initial value of the learned residual scales; None for no such scales.
    """

    embed_dim: int
    depths: Sequence[int]
    num_heads: Sequence[int]
    kernel_size: int = 7
    dilations: Sequence[Sequence[int]] | None = None
    mlp_ratio: float = 3.0
    drop_path_rate: float = 0.0
    layer_scale: float | None = None

    def __post_init__(self) -> None:
        check_int('embed_dim', self.embed_dim, minimum=2)
        if self.embed_dim % 2:
            raise ValueError(f'embed_dim must be even, got {self.embed_dim}')
        _check_int_list('depths', self.depths)
        _check_int_list('num_heads', self.num_heads)
        check_window_length(self.kernel_size)
        check_probability('drop_path_rate', self.drop_path_rate)
        check_positive('mlp_ratio', self.mlp_ratio)
        if self.layer_scale is not None:
            check_positive('layer_scale', self.layer_scale)
        self._check_heads()
        if self.dilations is not None:
            self._check_dilations(self.dilations)

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels of each stage."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    def stage_dilations(self, stage: int) -> tuple[int, ...]:
        """Returns the dilation of each layer of a stage."""
        if self.dilations is None:
            return (1,) * self.depths[stage]
        return tuple(self.dilations[stage])

    def drop_path_rates(self, stage: int) -> tuple[float, ...]:
        """Returns the stochastic depth rate of each layer of a stage."""
        first = sum(self.depths[:stage])
        last_layer = max(1, sum(self.depths) - 1)
        return tuple(
            self.drop_path_rate * (first + layer) / last_layer
            for layer in range(self.depths[stage])
        )

    def _check_heads(self) -> None:
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f'num_heads must have one entry per stage like depths ({len(self.depths)}), '
                f'got {len(self.num_heads)}: {list(self.num_heads)}'
            )
        for stage, (heads, channels) in enumerate(zip(self.num_heads, self.channels, strict=True)):
            if channels % heads:
                raise ValueError(
                    f'num_heads must divide the channels of its stage, but num_heads[{stage}]='
                    f'{heads} does not divide {channels} (embed_dim * 2**{stage})'
                )

    def _check_dilations(self, dilations: Sequence[Sequence[int]]) -> None:
        wanted = f'one list per stage with one dilation per layer, lengths {list(self.depths)}'
        if not is_list(dilations) or not all(is_list(each) for each in dilations):
            raise TypeError(f'dilations must be {wanted}, got {dilations!r}')
        if len(dilations) != len(self.depths):
            raise ValueError(f'dilations must be {wanted}, got {len(dilations)} lists')
        for stage, of_layers in enumerate(dilations):
            if len(of_layers) != self.depths[stage]:
                raise ValueError(
                    f'dilations must be {wanted}, but dilations[{stage}] has '
                    f'{len(of_layers)} entries: {list(of_layers)}'
                )
            for layer, dilation in enumerate(of_layers):
                check_int(f'dilations[{stage}][{layer}]', dilation, minimum=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IsotropicArchitecture:
    """Hyper-parameters of a backbone with a single resolution, checked on construction.

    Attributes:
        embed_dim: Channels of all layers.
        depth: Number of layers.
        num_heads: Number of attention heads of each layer.
        kernel_size: Window length of neighborhood attention; None for attention to the whole map.
        dilations: The dilation of each layer; None for 1 everywhere.
        drop_path_rate: Stochastic depth rate of the last layer, in [0, 1), rising linearly from 0.
    """

    embed_dim: int
    depth: int
    num_heads: int
    kernel_size: int | None = None
    dilations: Sequence[int] | None = None
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        check_int('embed_dim', self.embed_dim, minimum=1)
        check_int('depth', self.depth, minimum=1)
        check_probability('drop_path_rate', self.drop_path_rate)
        if self.dilations is not None:
            self._check_dilations(self.dilations)

    @property
    def layer_dilations(self) -> tuple[int, ...]:
        """The dilation of each layer."""
        return (1,) * self.depth if self.dilations is None else tuple(self.dilations)

    def drop_path_rates(self) -> tuple[float, ...]:
        """Returns the stochastic depth rate of each layer."""
        last_layer = max(1, self.depth - 1)
        return tuple(self.drop_path_rate * layer / last_layer for layer in range(self.depth))

    def _check_dilations(self, dilations: Sequence[int]) -> None:
        if not is_list(dilations):
            raise TypeError(f'dilations must be a list of one int per layer, got {dilations!r}')
        if self.kernel_size is None:
            raise ValueError(
                'attention to the whole map has no dilations; give kernel_size, got '
                f'{list(dilations)}'
            )
        if len(dilations) != self.depth:
            raise ValueError(
                f'dilations must be one int for each of the {self.depth} layers, got '
                f'{len(dilations)}: {list(dilations)}'
            )
        for index, dilation in enumerate(dilations):
            check_int(f'dilations[{index}]', dilation, minimum=1)


AnyArchitecture = TypeVar('AnyArchitecture', Architecture, IsotropicArchitecture)


def resolve_architecture(
    name: str | None, table: Mapping[str, AnyArchitecture], **explicit: Any
) -> AnyArchitecture:
    """Looks up an architecture in a table and replaces the values that are given explicitly.

    Args:
        name: Name in ``table``, or None if ``explicit`` describes the whole architecture.
        table: Known architectures by name.
        **explicit: Fields of the architecture; None means "not given". For ``layer_scale``, False
            means "no layer scale".

    Returns:
        The architecture, checked.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the name is unknown, a required argument is missing or a value is invalid.
    """
    given = {field: value for field, value in explicit.items() if value is not None}
    if given.get('layer_scale') is False:
        given['layer_scale'] = None
    if name is not None:
        if not isinstance(name, str) or name not in table:
            raise ValueError(f'arch must be one of {", ".join(table)}, got {name!r}')
        return dataclasses.replace(table[name], **given)
    kind = type(next(iter(table.values())))
    required = [
        field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING
    ]
    missing = [field for field in required if field not in given]
    if missing:
        raise ValueError(
            f'without arch (one of {", ".join(table)}), {", ".join(missing)} must be given'
        )
    return kind(**given)


def is_list(value: Any) -> bool:
    """Returns whether a value is a list, tuple or other sequence, but not a string."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_int_list(name: str, values: Sequence[int]) -> None:
    if not is_list(values) or not values:
        raise TypeError(f'{name} must be a list of one int per stage, got {values!r}')
    for stage, value in enumerate(values):
        check_int(f'{name}[{stage}]', value, minimum=1)
