"""Prints the tables of docs/gpu.md from measured results: ``python -m benchmarks.gpu_results``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

H200 = Path(__file__).with_name('results') / 'h200.json'
"""Microseconds are for the GPU alone: medians of replays of a CUDA graph over inputs that together
are larger than the cache. Maps are height x width / heads of NAT-Tiny's stages."""
PASSES = {'forward': 'forward_us', 'forward and backward': 'forward_backward_us'}


def least_bytes(place: str, batch: int, head_dim: int, mode: str) -> int:
    """Computes the minimum memory traffic in bytes, with every 16-bit tensor moved once.

    Args:
        place: Feature map, as named in the results.
        batch: Number of images.
        head_dim: Channels per head.
        mode: Key of ``PASSES``.
    """
    size, heads = place.split('/')
    height, width = map(int, size.split('x'))
    tokens = batch * height * width * int(heads)
    # Forward moves query, key, value and output. Backward reads these four and the output's
    # gradient, and writes three gradients. The log-sum-exp is written and read again.
    vectors, numbers = (4, 1) if mode == 'forward' else (12, 2)
    return tokens * (vectors * head_dim * 2 + numbers * 4)


def operator_table(results: Mapping[str, Any]) -> str:
    """Compares the backend ``triton`` with bias in bfloat16 with the limit by memory bandwidth."""
    rows = []
    for row in results['operator']:
        if row['way'] != 'nat_mm' or row['dtype'] != 'bfloat16':
            continue
        cells = [row['map']]
        for mode, key in PASSES.items():
            moved = least_bytes(row['map'], results['batch'], results['head_dim'], mode)
            least = moved / results['bandwidth'] * 1e6
            cells += [f'{row[key]:.0f} us', f'{row[key] / least:.1f}']
        rows.append(cells)
    titles = ['Map', 'Forward', "times memory's", 'Forward and backward', "times memory's"]
    return _markdown(titles, rows)


def comparison_table(results: Mapping[str, Any]) -> str:
    """Shows how many times as long others take as the backend ``triton`` with bias."""
    mine = {
        row['map']: row
        for row in results['operator']
        if row['way'] == 'nat_mm' and row['dtype'] == 'bfloat16'
    }
    others = [row for row in results['operator'] if row['way'] != 'nat_mm']
    return _ratios('Operator', others, mine)


def module_table(results: Mapping[str, Any]) -> str:
    """Shows how many times as long Swin's module takes as ours, with projections and bias."""
    way = 'neighborhood attention'
    mine = {row['map']: row for row in results['module'] if row['way'] == way}
    return _ratios('Module', [row for row in results['module'] if row['way'] != way], mine)


def backbone_table(results: Mapping[str, Any]) -> str:
    """Shows times and memory of whole backbones; what was not measured is empty."""
    formats = {'infer_ms': '{:.1f} ms', 'train_ms': '{:.1f} ms', 'memory_gib': '{:.2f} GiB'}
    rows = []
    for row in results['backbone']:
        cells = ['' if row[key] is None else form.format(row[key]) for key, form in formats.items()]
        rows.append([row['model'], row['way'], *cells])
    return _markdown(['Backbone', 'How', 'Inference', 'Training step', 'Memory of a step'], rows)


def _ratios(title: str, others: Sequence[Mapping[str, Any]], mine: Mapping[str, Any]) -> str:
    rows = [
        [row['way'], row['map']]
        + [f'{row[key] / mine[row["map"]][key]:.1f}' for key in PASSES.values()]
        for row in sorted(others, key=lambda row: row['way'])
    ]
    return _markdown([title, 'Map', *(mode.capitalize() for mode in PASSES)], rows)


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ['---'] + ['--:'] * (len(titles) - 1), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def tables(path: Path = H200) -> list[str]:
    """Returns all tables for a file of results."""
    results = json.loads(path.read_text(encoding='utf-8'))
    makers = (operator_table, comparison_table, module_table, backbone_table)
    return [make(results) for make in makers]


if __name__ == '__main__':
    print('\n\n'.join(tables()))
