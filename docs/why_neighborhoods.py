"""Creates the figures and tables of docs/why_neighborhoods.md and the ablation configs' README.

    python docs/why_neighborhoods.py            # measures, draws, writes: 2 minutes on one core
    python docs/why_neighborhoods.py --check    # exit code 2 if the README is out of date

Times are CPU times of a single thread, so that other programs hardly affect them.
"""

import argparse
import re
import time
from pathlib import Path

import torch
import yaml
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.nn.functional import interpolate

from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.pattern_comparison import (
    PatternRow,
    build_patterns,
    compare_patterns,
    draw_weights,
    measure_field_sides,
)
from nat_mm.analysis.pattern_figures import draw_equivariance, draw_field_growth
from nat_mm.analysis.reach import axis_reach
from nat_mm.analysis.workloads import find_workload
from nat_mm.layers import ATTENTION_PATTERNS, NATLayer

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/why_neighborhoods.md'
FOLDER = ROOT / 'configs/classification/ablations'
SMALL = {'type': 'NAT', 'embed_dim': 32, 'depths': (2, 2, 2, 2), 'num_heads': (1, 2, 4, 8)}
MINI = {'type': 'NAT', 'arch': 'mini'}
MODES = ('inference', 'training')
SIDE, WINDOW = 14, 5
TOKENS = {'inside': (6, 8), 'in a corner': (0, 1)}
NAMES = {
    'NeighborhoodAttention2D': 'neighborhood',
    'StandAloneAttention2D': 'SASA',
    'ShiftedWindowAttention2D': 'shifted windows',
    'SelfAttention2D': 'whole map',
    'ConvTokenizer': 'convolutions',
    'PatchTokenizer': 'patches',
    'ConvDownsampler': 'convolutions',
    'PatchMerging': 'patches',
}
README = """\
<!-- Written by docs/why_neighborhoods.py from the configs and published.yml: change those. -->

# What NAT is made of

These are the configs of the comparisons in
[Neighborhood Attention Transformer](https://arxiv.org/abs/2204.07143), and of some that complete
them. [Why neighborhoods](../../../docs/why_neighborhoods.md) explains the attention patterns. These
models have not been trained with nat_mm.

{table}

Params and FLOPs are counted by nat_mm; FLOPs are multiply-adds of the whole model for a 224x224
image. "published" numbers are the papers' own. Top-1 on ImageNet-1k is the papers': 81.3 and 83.2
are from their main tables. The others are from the ablation in version 5 of the NAT paper, taken
from a machine-written summary and not checked against the paper. Empty cells: no figure was found.

For SASA, only its windows are counted, not the margin of zeros that the map gets for the operator.

```sh
nat-mm train configs/classification/ablations/nat_tiny_sasa_in1k_224.py --work-dir work_dirs/sasa
```
"""


def draw_patterns(target: Path) -> None:
    """Draws what two tokens attend to in each pattern."""
    figure = Figure(figsize=(9.6, 5.2), layout='constrained')
    grid = figure.subplots(len(TOKENS), len(ATTENTION_PATTERNS))
    colors = ListedColormap(['#f7f7f7', '#f6d186', '#c0392b'])
    style = {'cmap': colors, 'vmin': 0, 'vmax': 2, 'edgecolors': '#999999', 'linewidth': 0.5}
    for line, (place, (row, column)) in zip(grid, TOKENS.items(), strict=True):
        for axes, pattern in zip(line, ATTENTION_PATTERNS, strict=True):
            shifted = pattern == 'shifted_window'
            layer = NATLayer(2, 1, kernel_size=WINDOW, attention=pattern, shifted=shifted)
            reach = axis_reach(layer.attn, SIDE)
            cells = (reach[row][:, None] & reach[column]).int()
            cells[row, column] = 2
            axes.pcolormesh(cells.numpy(), **style)
            axes.set(xlim=(0, SIDE), ylim=(SIDE, 0), aspect='equal', xticks=[], yticks=[])
            axes.set_title(f'{pattern}, {place}\n{int((cells > 0).sum())} tokens', fontsize=10)
    figure.savefig(target, dpi=100)


def measure_costs() -> str:
    """Measures the table of time and memory for NAT-Mini's backbone."""
    backbone = MODELS.build(MINI)
    rows = compare_patterns(
        build_patterns(backbone, MINI, ATTENTION_PATTERNS),
        torch.randn(1, 3, 96, 96),
        shape=(224, 224),
        modes=MODES,
        rounds=2,
        seconds=0.2,
        clock=time.process_time,
    )
    return write_costs(rows)


def write_costs(rows: list[PatternRow]) -> str:
    lines = [
        '| Attention | Params | FLOPs | Inference | memory | Training | memory |',
        '| --- | --: | --: | --: | --: | --: | --: |',
    ]
    for row in rows:
        cells = [
            cell
            for mode in MODES
            for cell in (
                f'{1000 / row.images_per_second[mode]:.0f} ms',
                f'{row.peak_bytes[mode] / 2**20:.0f} MiB',
            )
        ]
        counted = f'{row.parameters / 1e6:.1f} M | {row.multiply_adds / 1e9:.2f} G'
        lines.append(f'| {row.pattern} | {counted} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def measure_changes() -> str:
    """Measures and draws the equivariance, and returns its table."""
    backbone = MODELS.build(SMALL)
    draw_weights(backbone)
    generator = torch.Generator().manual_seed(0)
    image = interpolate(torch.randn(1, 3, 36, 36, generator=generator), (288, 288), mode='bicubic')
    rows = compare_patterns(
        build_patterns(backbone, SMALL, ATTENTION_PATTERNS), image, shape=(224, 224), modes=()
    )
    draw_equivariance(rows, ROOT / 'docs/why_equivariance.png')
    stages = [each.stage for each in rows[0].equivariance]
    lines = [
        f'| Attention | {" | ".join(f"stage {stage}" for stage in stages)} |',
        f'| --- {"| --: " * len(stages)}|',
    ]
    for row in rows:
        cells = (f'{100 * each.error:.3f} %' for each in row.equivariance)
        lines.append(f'| {row.pattern} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw_growth() -> None:
    """Draws how receptive fields grow in NAT-Mini."""
    backbones = build_patterns(MODELS.build(MINI), MINI, ATTENTION_PATTERNS)
    sides = {name: measure_field_sides(each, (800, 800)) for name, each in backbones.items()}
    draw_field_growth(sides, ROOT / 'docs/why_receptive_fields.png')


def write_readme() -> str:
    """Returns the README of the ablation configs, after counting parameters and FLOPs."""
    lines = [
        '| Config | Attention | Kernel | Tokenizer | Downsampler | Params | published | FLOPs '
        '| published | Top-1 |',
        '| --- | --- | --: | --- | --- | --: | --: | --: | --: | --: |',
    ]
    for row in yaml.safe_load((FOLDER / 'published.yml').read_text()):
        path = FOLDER.parent / row['config']
        config = Config.fromfile(path)
        init_default_scope(config.default_scope)
        with torch.device('meta'):
            model = MODELS.build(config.model)
        workload = find_workload(model, config)
        costs = count_costs(model, workload.find_shape(config), workload.run)
        backbone = model.backbone
        parts = (backbone.stages[0].blocks[0].attn, backbone.patch_embed)
        attention, tokenizer, downsampler = (
            NAMES[type(part).__name__] for part in (*parts, backbone.stages[0].downsample)
        )
        size = (parts[0].rpb.shape[-1] + 1) // 2
        published = row.get('published', {})
        folder = '' if path.parent == FOLDER else f'../{path.parent.name}/'
        lines.append(
            f'| [{path.stem}]({folder}{path.name}) | {attention} '
            f'| {"" if attention == "whole map" else size} | {tokenizer} | {downsampler} '
            f'| {costs.parameters[""] / 1e6:.2f} M | {published.get("parameters", "")} '
            f'| {costs.multiply_adds[""] / 1e9:.2f} G | {published.get("flops", "")} '
            f'| {published.get("top1", "")} |'
        )
    return README.format(table='\n'.join(lines))


def put_table(name: str, table: str) -> None:
    """Replaces a table on the page."""
    text, count = re.subn(
        rf'(<!-- table: {name} -->\n).*?(\n<!-- end -->)',
        lambda match: f'{match[1]}\n{table}\n{match[2]}',
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f'{PAGE} must have one table {name}, it has {count}')
    PAGE.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, check the README')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    readme, path = write_readme(), FOLDER / 'README.md'
    if arguments.check:
        if not path.exists() or path.read_text() != readme:
            parser.exit(2, f'out of date, run python docs/why_neighborhoods.py: {path}\n')
        return
    path.write_text(readme)
    draw_patterns(ROOT / 'docs/why_patterns.png')
    draw_growth()
    put_table('changes', measure_changes())
    put_table('costs', measure_costs())


if __name__ == '__main__':
    main()
