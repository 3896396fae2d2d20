"""Compares every published experiment with its config and writes docs/reproduction.md.

    python -m docs.reproduction            # all of them, about 5 minutes of CPU time
    python -m docs.reproduction NAME ...   # prints the rows of some and writes nothing

The published values are in tests/data/published_experiments.json and in the metafiles of the
configs. Models are built without memory for their weights, and FLOPs are counted from shapes alone.
"""

import argparse
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import nat_mm  # noqa: F401  registers the backbones
from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.workloads import find_workload
from tests.classification.conftest import config_name
from tests.configs.test_facts import describe
from tests.model_zoo import ROOT, image_size, read_model_zoo

PAGE = Path(__file__).with_suffix('.md')
TEXT = """\
<!-- Written by docs/reproduction.py: change that, not this file. -->

# Reproduction

This page compares each published experiment with NAT, DiNAT and DiNAT_s with its config in nat_mm.
*Facts* are what the authors' configs and sources say: architecture, dilations, optimizer, schedule,
image and crop sizes, and mixed precision. Parameters are in millions. FLOPs are in billions of
multiply-adds of the whole model, for one image of the size that was used for the published number.
Accuracy is not compared, since these models have not been trained with nat_mm.

{summary}

{table}

{notes}

`python -m docs.reproduction` measures and writes all of this again.
"""
NOTES = {
    'dinat_large_in22k_in1k_384_11x11': (
        'The published table repeats the parameters of the 7x7 model, whose bias tables are '
        'smaller.'
    ),
    'mask2former_dinat_large_640x640_160k_ade20k_instance': (
        "The authors' config for instances also computes a semantic map, which multiplies 200 "
        'queries by 100 classes at each of 640,000 pixels: 12.8 of the 535 billion.'
    ),
    'mask2former_dinat_large_640x640_160k_ade20k_panoptic': (
        'The published number is that of the config for instances; the semantic map would take '
        '19.2 billion here.'
    ),
}
"""Explanations of differing numbers, by the name of the config."""
TOLERANCE = 0.01
"""Relative deviation of FLOPs from the published number that needs no note."""


@dataclass(frozen=True)
class Row:
    """An experiment.

    Attributes:
        name: Name of its config.
        differing: Names of the facts that differ from the published ones.
        parameters: Millions of parameters, published and ours.
        flops: Billions of multiply-adds, published and ours.
    """

    name: str
    differing: tuple[str, ...]
    parameters: tuple[float, float]
    flops: tuple[float, float]

    def __str__(self) -> str:
        facts = f'differ: {", ".join(self.differing)}' if self.differing else 'equal'
        numbers = [_show(*self.parameters), _show(*self.flops)]
        mark = f' [{[*NOTES].index(self.name) + 1}]' if self.name in NOTES else ''
        return f'| {self.name}{mark} | {facts} | {" | ".join(numbers)} |'


def _show(published: float, ours: float) -> str:
    digits = 1 if ours > 100 else 2
    return f'{published:g} | {ours:.{digits}f}'


@functools.cache
def read_experiments() -> dict[str, tuple[str, dict]]:
    """Reads kind and facts of each published experiment, by the name of its config."""
    content = json.loads((ROOT / 'tests/data/published_experiments.json').read_text())
    named = {
        'experiments': lambda facts: facts['name'],
        'imagenet_backbones': config_name,
        'mask2former': lambda facts: _name_of_weights(facts['weights']),
        'isotropic': lambda facts: _name_of_weights(facts['weights']),
    }
    arch = content['mask2former_arch']
    for facts in content['mask2former']:
        facts['arch'] = arch
    return {
        find_name(facts): (kind, facts)
        for kind, find_name in named.items()
        for facts in content[kind]
    }


read_metafiles = functools.cache(read_model_zoo)


def _name_of_weights(address: str) -> str:
    return next(name for name, entry in read_metafiles().items() if entry['Weights'] == address)


def measure(name: str) -> Row:
    """Builds a model and compares it with the published facts and numbers."""
    kind, facts = read_experiments()[name]
    entry = read_metafiles()[name]
    config = Config.fromfile(ROOT / entry['Config'])
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    found = DESCRIBE[kind](config, model)
    differing = tuple(key for key, value in found.items() if value != facts[key])
    costs = count_costs(model, image_size(entry), find_workload(model, config).run)
    published = entry['Metadata']
    return Row(
        name,
        differing,
        parameters=(published['Parameters'] / 1e6, costs.parameters[''] / 1e6),
        flops=(published['FLOPs'] / 1e9, costs.multiply_adds[''] / 1e9),
    )


def describe_classifier(config: Config, model: nn.Module) -> dict[str, Any]:
    """Extracts the facts of a hierarchical classifier from its config and model."""
    backbone = config.model.backbone
    (kernel_size,) = {
        block.attn.kernel_size for stage in model.backbone.stages for block in stage.blocks
    }
    init_cfg = backbone.get('init_cfg') or {}
    return {
        'name': f'{backbone.type}-{backbone.arch.title()}',
        'resolution': {step.type: step for step in config.test_pipeline}['CenterCrop'].crop_size,
        'kernel_size': kernel_size,
        'pretraining': init_cfg.get('checkpoint'),
    }


def describe_mask2former(config: Config, model: nn.Module) -> dict[str, Any]:
    """Extracts the facts of a Mask2Former experiment from its config and model."""
    head = getattr(model, 'decode_head', None) or model.panoptic_head
    wrapper = config.optim_wrapper
    schedule = config.param_scheduler
    schedule = schedule if isinstance(schedule, dict) else schedule[0]
    stages = [[block.attn for block in stage.blocks] for stage in model.backbone.levels]
    mlp = model.backbone.levels[0].blocks[0].mlp.fc1
    return {
        'arch': {
            'embed_dim': mlp.in_features,
            'depths': [len(stage) for stage in stages],
            'num_heads': [stage[0].num_heads for stage in stages],
            'kernel_size': stages[0][0].kernel_size,
            'dilations': [[attention.dilation for attention in stage] for stage in stages],
            'drop_path_rate': config.model.backbone.drop_path_rate,
            'mlp_ratio': mlp.out_features / mlp.in_features,
        },
        'num_queries': head.num_queries,
        'optimizer': {
            'type': wrapper.optimizer.type,
            'lr': wrapper.optimizer.lr,
            'weight_decay': wrapper.optimizer.weight_decay,
            'backbone_multiplier': wrapper.paramwise_cfg.custom_keys.backbone.lr_mult,
        },
        'batch': config.auto_scale_lr.base_batch_size,
        'max_iters': config.train_cfg.max_iters,
        'steps': list(schedule.get('milestones', [])),
        'amp': wrapper.type != 'OptimWrapper',
        'input': describe_input(config),
    }


def describe_input(config: Config) -> dict[str, Any]:
    """Extracts the sizes of images and crops."""
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    crop = steps['RandomCrop'].crop_size
    if 'RandomResize' in steps:
        return {'image_size': crop[0], 'scale': list(steps['RandomResize'].ratio_range)}
    resize = steps['RandomChoiceResize']
    (test_resize,) = [
        step for step in config.test_dataloader.dataset.pipeline if step.type == 'Resize'
    ]
    if resize.resize_type == 'ResizeShortestEdge':
        short_sides, longest = resize.scales, resize.max_size
    else:
        # mmdet's scales and crops start with the width.
        short_sides, longest = [scale[1] for scale in resize.scales], resize.scales[0][0]
        crop = crop[::-1]
    return {
        'short_sides': list(short_sides),
        'longest': longest,
        'crop': list(crop),
        'test': list(test_resize.scale[::-1]),
    }


def describe_isotropic(config: Config, model: nn.Module) -> dict[str, Any]:
    """Extracts the facts of an isotropic classifier from its config and model."""
    layers = model.backbone.layers
    attention, mlp = layers[0].attn, layers[0].mlp.fc1
    kernel_size = getattr(attention, 'kernel_size', None)
    return {
        'patch_size': model.backbone.patch_embed.patch_size,
        'embed_dim': mlp.in_features,
        'depth': len(layers),
        'num_heads': attention.num_heads,
        'mlp_ratio': mlp.out_features / mlp.in_features,
        'kernel_size': kernel_size,
        'dilations': [layer.attn.dilation for layer in layers] if kernel_size else None,
        'drop_path_rate': layers[-1].drop_path.p,
        'resolution': {step.type: step for step in config.test_pipeline}['CenterCrop'].crop_size,
    }


DESCRIBE = {
    'experiments': lambda config, model: describe(config),
    'imagenet_backbones': describe_classifier,
    'mask2former': describe_mask2former,
    'isotropic': describe_isotropic,
}


def write_page(rows: list[Row]) -> str:
    """Returns the page with all experiments."""
    header = [
        '| Config | Facts | Parameters published | ours | FLOPs published | ours |',
        '| --- | --- | --: | --: | --: | --: |',
    ]
    notes = [f'\\[{number}] {note}' for number, note in enumerate(NOTES.values(), start=1)]
    return TEXT.format(
        summary=' '.join(summarize(rows)),
        table='\n'.join([*header, *map(str, rows)]),
        notes='\n\n'.join(notes),
    )


def summarize(rows: list[Row]) -> Iterator[str]:
    equal = sum(not row.differing for row in rows)
    yield f'{equal} of {len(rows)} configs agree with the published facts.'
    close = [row for row in rows if abs(row.flops[1] / row.flops[0] - 1) <= TOLERANCE]
    largest = max(abs(row.flops[1] / row.flops[0] - 1) for row in close)
    yield (
        f'The FLOPs of {len(close)} are within {largest:.1%} of the published numbers; the notes '
        'below the table explain the others.'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='NAME', help='configs; all without any')
    names = parser.parse_args().names
    rows = []
    for name in names or read_experiments():
        rows.append(measure(name))
        print(rows[-1], flush=True)
    if not names:
        PAGE.write_text(write_page(rows))
        print(f'wrote {PAGE}')


if __name__ == '__main__':
    main()
