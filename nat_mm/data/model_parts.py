"""Finds the necks and heads of a model, each with its key in the config."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from torch import nn

from nat_mm.config.datasets import walk_datasets
from nat_mm.data.shape_trace import ShapeTrace

Described = tuple[str, nn.Module, dict[str, Any]]
"""Key of a part in the config, the part, and its config."""


@dataclass(frozen=True)
class Part:
    """A neck or head and its input.

    Attributes:
        place: Its key in the config, such as ``model.neck``.
        module: The built part.
        config: Its config.
        given: Output of the preceding part, usually feature maps ``[2, C, H, W]``.
        giver: Key of the preceding part in the config.
    """

    place: str
    module: nn.Module
    config: dict[str, Any]
    given: Sequence[Any]
    giver: str


def find_parts(
    owner: nn.Module, config: dict[str, Any], name: str, place: str = 'model'
) -> Iterator[Described]:
    """Yields a part of a model, or each of several, with its key in the config."""
    module, part_config = getattr(owner, name, None), config.get(name)
    if not isinstance(module, nn.Module):
        return
    if isinstance(part_config, dict):
        # The stages of a cascade may share a config.
        for child in module if isinstance(module, nn.ModuleList) else [module]:
            yield f'{place}.{name}', child, part_config
    elif isinstance(part_config, list | tuple):
        for index, (child, child_config) in enumerate(zip(module, part_config, strict=False)):
            yield f'{place}.{name}.{index}', child, child_config


def run_necks(trace: ShapeTrace, config: Config, features: Any) -> tuple[Part | None, Any]:
    """Runs the necks on the output of the backbone.

    Returns:
        The last neck that ran, if any, and its output.
    """
    part, giver = None, 'model.backbone'
    for place, module, part_config in find_parts(trace.model, config.model, 'neck'):
        if not isinstance(features, list | tuple):
            break
        if type(module).__name__ == 'SwAVNeck':
            # It takes the feature maps of each size of crops.
            features = [features]
        part = Part(place, module, part_config, features, giver)
        features, giver = trace.run(module, features), place
    return part, features


def find_steps(config: Config) -> list[dict[str, Any]]:
    """Lists the transforms of the training pipeline, including those of inner datasets."""
    return [
        step
        for _, each in walk_datasets(config, 'train')
        for step in each.get('pipeline') or []
        if isinstance(step, dict)
    ]
