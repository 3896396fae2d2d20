"""Compares a backbone's attention patterns: their costs, and how they treat the input."""

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nat_mm.analysis.equivariance import Equivariance, measure_equivariance
from nat_mm.analysis.fields import receptive_fields
from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.pattern_costs import make_work, measure_peak_memory, measure_seconds
from nat_mm.backbones.base import NeighborhoodBackbone


@dataclass(frozen=True)
class PatternRow:
    """The results for one attention pattern.

    Attributes:
        pattern: One of ``nat_mm.layers.ATTENTION_PATTERNS``.
        parameters: Number of parameters of the backbone.
        multiply_adds: Multiply-adds of the backbone for one image.
        images_per_second: Throughput by mode.
        peak_bytes: Peak memory by mode; see `nat_mm.analysis.pattern_costs.measure_peak_memory`.
        equivariance: One result per stage.
        field_sides: For each layer, the mean side in pixels of the receptive field of the token in
            the middle of the image.
    """

    pattern: str
    parameters: int
    multiply_adds: int
    images_per_second: dict[str, float]
    peak_bytes: dict[str, int]
    equivariance: list[Equivariance]
    field_sides: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Returns all numbers, unrounded; for equivariance, the error of each stage."""
        fields = dict(vars(self))
        fields['equivariance'] = {each.stage: each.error for each in self.equivariance}
        return fields


def build_patterns(
    backbone: NeighborhoodBackbone, config: dict[str, Any], patterns: Sequence[str]
) -> dict[str, NeighborhoodBackbone]:
    """Builds variants of a backbone with each attention pattern and the same weights.

    Args:
        backbone: The backbone whose weights and device they get.
        config: Config that it was built from.
        patterns: Some of ``nat_mm.layers.ATTENTION_PATTERNS``.

    Raises:
        ValueError: There is no such pattern, or it does not go with the config's dilations.
    """
    device = next(backbone.parameters()).device
    built = {}
    for pattern in patterns:
        changes = {'attention': pattern, 'init_cfg': None}
        if pattern in ('shifted_window', 'full'):
            changes['attention_backend'] = 'auto'
        built[pattern] = MODELS.build({**config, **changes}).to(device).eval()
        built[pattern].load_state_dict(backbone.state_dict())
    return built


def draw_weights(backbone: nn.Module) -> None:
    """Draws weights of unit gain, so that attention changes tokens as much as in trained models.

    The usual initial weights are so small that a layer hardly changes a token.

    Args:
        backbone: Changed in place: linear layers get a standard deviation of one over the square
            root of their inputs, bias tables a standard deviation of 1.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(parameter: Tensor, deviation: float) -> None:
        values = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(deviation * values)

    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.Linear):
                draw(module.weight, module.in_features**-0.5)
            elif getattr(module, 'rpb', None) is not None:
                draw(module.rpb, 1.0)


def compare_patterns(
    backbones: dict[str, NeighborhoodBackbone],
    image: Tensor,
    *,
    shape: tuple[int, int],
    batch_size: int = 1,
    modes: Sequence[str] = ('inference',),
    **timing: Any,
) -> list[PatternRow]:
    """Measures backbones that differ in their attention pattern.

    Args:
        backbones: By pattern, on one device.
        image: Input of the backbone, [1, C, H, W], for the equivariance.
        shape: Height and width of the images for everything else.
        batch_size: Images per batch when measuring time and memory.
        modes: Some of ``nat_mm.analysis.pattern_costs.MODES``.
        **timing: Options of `nat_mm.analysis.pattern_costs.measure_seconds`.

    Returns:
        One row per pattern, in the order of ``backbones``.

    Raises:
        ValueError: The image is too small.
    """
    equivariance = {
        pattern: measure_equivariance(backbone, image) for pattern, backbone in backbones.items()
    }
    first = next(iter(backbones.values()))
    images = torch.randn(batch_size, first.in_channels, *shape).to(image)
    times: dict[str, dict[str, float]] = {pattern: {} for pattern in backbones}
    memory: dict[str, dict[str, int]] = {pattern: {} for pattern in backbones}
    for mode in modes:
        works = {name: make_work(each, images, mode) for name, each in backbones.items()}
        for name, work in works.items():
            memory[name][mode] = measure_peak_memory(work, image.device)
            backbones[name].zero_grad()
        for name, each in measure_seconds(works, **timing).items():
            times[name][mode] = batch_size / each
    rows = []
    for pattern, backbone in backbones.items():
        on_meta = deepcopy(backbone).eval().to('meta')
        costs = count_costs(on_meta, shape, lambda model, image: model(image))
        rows.append(
            PatternRow(
                pattern=pattern,
                parameters=costs.parameters[''],
                multiply_adds=costs.multiply_adds[''],
                images_per_second=times[pattern],
                peak_bytes=memory[pattern],
                equivariance=equivariance[pattern],
                field_sides=measure_field_sides(on_meta, shape),
            )
        )
    return rows


def measure_field_sides(backbone: NeighborhoodBackbone, shape: tuple[int, int]) -> list[float]:
    """Measures the mean side, in pixels, of the middle token's receptive field after each layer."""
    height, width = shape
    image = torch.empty(1, backbone.in_channels, height, width, device='meta')
    fields = receptive_fields(backbone, image, point=(width / 2, height / 2))
    return [math.sqrt(int(field.rows.sum()) * int(field.columns.sum())) for field in fields]


def as_json(rows: Sequence[PatternRow]) -> str:
    """Formats the rows as JSON for programs."""
    return json.dumps([row.as_dict() for row in rows], indent=2)


def print_tables(rows: Sequence[PatternRow]) -> None:
    """Prints the rows for people: costs, and how much features change when the image moves."""
    modes = list(rows[0].images_per_second)
    costs = Table('attention', 'parameters', 'multiply-adds', box=SIMPLE)
    for mode in modes:
        costs.add_column(f'{mode}, images/s', justify='right')
        costs.add_column('peak memory', justify='right')
    changes = Table('change by moving', box=SIMPLE)
    for each in rows[0].equivariance:
        changes.add_column(f'stage {each.stage}', justify='right')
    for row in rows:
        measured = (
            value
            for mode in modes
            for value in (
                f'{row.images_per_second[mode]:.3g}',
                f'{row.peak_bytes[mode] / 2**20:.0f} MiB',
            )
        )
        counted = f'{row.parameters / 1e6:.2f} M', f'{row.multiply_adds / 1e9:.2f} G'
        costs.add_row(row.pattern, *counted, *measured)
        changes.add_row(row.pattern, *(f'{each.error:.1e}' for each in row.equivariance))
    console = Console()
    console.print(costs)
    console.print(changes)
