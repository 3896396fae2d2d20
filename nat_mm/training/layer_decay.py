"""Lets mmdet's and mmseg's layer-wise decay of the learning rate handle the backbones of nat_mm."""

import functools
from types import ModuleType
from typing import Any

from torch import nn

from nat_mm.backbones.base import FreezableBackbone
from nat_mm.ops.validation import check_positive

PREFIX = 'backbone.'


def handle_own_backbones(module: ModuleType) -> None:
    """Extends ``LearningRateDecayOptimizerConstructor``, which knows ConvNeXt, BEiT and MAE.

    mmpretrain's constructor asks each backbone for ``get_layer_depth``, so it needs no extension.

    Args:
        module: ``layer_decay_optimizer_constructor`` of mmdet or mmseg.
    """
    kind = module.LearningRateDecayOptimizerConstructor
    add_params = kind.add_params

    @functools.wraps(add_params)
    def extended(self: Any, params: list[dict], module: nn.Module, **options: Any) -> None:
        backbone = getattr(module, 'backbone', None)
        if isinstance(backbone, FreezableBackbone):
            params.extend(group_by_depth(module, backbone, self))
        else:
            add_params(self, params, module, **options)

    kind.add_params = extended


def group_by_depth(model: nn.Module, backbone: FreezableBackbone, constructor: Any) -> list[dict]:
    """Groups parameters by their depth, as upstream does for the backbones that it knows.

    Norms, biases and relative positional biases have no weight decay. The learning rate of a group
    is the base rate times ``decay_rate ** n``, for a group n depths before the last one.

    Args:
        model: The model; parameters that are not trained are left out.
        backbone: Its backbone.
        constructor: Gives the base learning rate, the weight decay and ``paramwise_cfg``, which has
            ``decay_rate``; ``decay_type``, ``layer_wise`` (default) or ``stage_wise``; and
            ``num_layers``, which defaults to the number of layers or stages.

    Returns:
        The groups, in the optimizer's format.

    Raises:
        TypeError: If ``decay_rate`` is not a number.
        ValueError: If a value of ``paramwise_cfg`` does not fit the backbone.
    """
    settings, name = constructor.paramwise_cfg, type(backbone).__name__
    kinds = {'layer_wise': 'get_layer_depth', 'stage_wise': 'get_stage_depth'}
    known = {kind: getattr(backbone, method, None) for kind, method in kinds.items()}
    kind = settings.get('decay_type', 'layer_wise')
    find_depth = known.get(kind)
    if find_depth is None:
        kinds_known = ' or '.join(repr(each) for each, method in known.items() if method)
        raise ValueError(f'paramwise_cfg.decay_type must be {kinds_known} for {name}, got {kind!r}')
    rate = settings.get('decay_rate')
    check_positive('paramwise_cfg.decay_rate', rate)
    _, count = find_depth('', PREFIX)
    if settings.get('num_layers', count - 2) != count - 2:
        raise ValueError(
            f'paramwise_cfg.num_layers must be {count - 2}, the number of '
            f'{kind.removesuffix("_wise")}s of {name}, or left out, got {settings["num_layers"]!r}'
        )
    groups: dict[str, dict] = {}
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth, _ = find_depth(parameter_name, PREFIX)
        decays = parameter.ndim > 1 and not parameter_name.endswith(('.bias', '.rpb'))
        group_name = f'layer_{depth}_{"decay" if decays else "no_decay"}'
        if group_name not in groups:
            scale = rate ** (count - 1 - depth)
            groups[group_name] = dict(
                params=[],
                param_names=[],
                group_name=group_name,
                lr_scale=scale,
                lr=scale * constructor.base_lr,
            )
            if not decays:
                groups[group_name]['weight_decay'] = 0.0
            elif constructor.base_wd is not None:
                groups[group_name]['weight_decay'] = constructor.base_wd
        groups[group_name]['params'].append(parameter)
        groups[group_name]['param_names'].append(parameter_name)
    return list(groups.values())
