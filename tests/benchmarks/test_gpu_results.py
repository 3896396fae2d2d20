"""Tests the tables of GPU measurements."""

import json
from pathlib import Path

from benchmarks import gpu_results

PAGE = Path(__file__).parents[2] / 'docs' / 'gpu.md'


def test_the_documented_tables_are_those_of_the_results():
    page = PAGE.read_text(encoding='utf-8')
    tables = gpu_results.tables()
    assert len(tables) == 4
    for table in tables:
        assert table in page


def test_least_bytes_are_those_of_the_tensors():
    """Forward moves query, key, value and output; backward moves them and their gradients."""
    tokens = 2 * 5 * 7 * 3
    vectors, numbers = tokens * 32 * 2, tokens * 4
    assert gpu_results.least_bytes('5x7/3', 2, 32, 'forward') == 4 * vectors + numbers
    both = gpu_results.least_bytes('5x7/3', 2, 32, 'forward and backward')
    assert both == 12 * vectors + 2 * numbers


def test_ratios_are_to_our_own_time_on_the_same_map(tmp_path):
    row = dict(map='8x8/1', dtype='bfloat16')
    mine = dict(row, way='nat_mm', forward_us=2.0, forward_backward_us=5.0)
    other = dict(row, way='other', forward_us=3.0, forward_backward_us=20.0)
    results = dict(batch=1, head_dim=8, bandwidth=1e9, operator=[other, mine], module=[])
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(dict(results, backbone=[])))
    operator, comparison, *_ = gpu_results.tables(path)
    # 64 tokens of 4 x 8 two-byte numbers and one of four bytes: 4.352 us at 1 GB/s
    assert operator.splitlines()[2].startswith('| 8x8/1 | 2 us | 0.5 |')
    assert comparison.splitlines()[2:] == ['| other | 8x8/1 | 1.5 | 4.0 |']
