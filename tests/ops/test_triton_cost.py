"""The counted work of GPU kernels, against counting it another way, and the tables in the docs."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu_cost, gpu_work
from benchmarks.settings import StageMap
from nat_mm.ops.backends.triton.tiles import Tiles
from nat_mm.ops.window import axis_window
from tests.ops.cases import Case, make_inputs, run

ROOT = Path(__file__).parents[2]
AXES = [(7, 7, 1), (19, 7, 1), (23, 3, 1), (33, 13, 1), (31, 5, 3), (16, 7, 2)]


@pytest.mark.parametrize('owns', ['queries', 'keys'])
@pytest.mark.parametrize(('length', 'kernel_size', 'dilation'), AXES, ids=str)
def test_tiles_of_an_axis_meet_what_the_windows_say(length, kernel_size, dilation, owns):
    """Neighbors token by token, from the definition that `reference` uses."""
    neighbors, _ = axis_window(length, kernel_size, dilation)
    tile, block = 8, 4
    tiles = tokens = around = blocks = 0
    for residue in range(dilation):
        members = range(residue, length, dilation)
        for first in range(0, len(members), tile):
            own = set(members[first : first + tile])
            pairs = {(q, k) for q in range(length) for k in neighbors[q].tolist()}
            if owns == 'queries':
                met = {k for q, k in pairs if q in own}
            else:
                met = {q for q, k in pairs if k in own}
            tiles += 1
            tokens += len(own)
            around += len(met)
            blocks += -(-len(met) // block)
    found = gpu_work.count_axis(length, kernel_size, dilation, tile=tile, block=block, owns=owns)
    if owns == 'queries':
        assert found == (tiles, tokens, around, blocks)
    else:  # near borders the kernel takes a few queries more than it must
        assert found[:2] == (tiles, tokens)
        assert around <= found.around <= around + tiles * (kernel_size // 2)


def test_a_map_is_all_pairs_of_tiles_of_its_axes():
    stage = StageMap(19, 23, 64, 2)
    tiles = Tiles(8, 4, 2, 16, warps=4, stages=2)
    options = dict(kernel_size=(7, 5), dilation=(2, 1))
    count = gpu_work.count_map(stage, tiles, owns='queries', **options)
    rows = [(length, first) for length in (10, 9) for first in range(0, length, 8)]
    expected = np.zeros(4, int)
    for (length, top), left in product(rows, range(0, 23, 4)):
        height, width = min(8, length - top), min(4, 23 - left)
        down = min(max(top + height - 1 - 3, 0), length - 7) + 7 - min(max(top - 3, 0), length - 7)
        across = min(max(left + width - 1 - 2, 0), 18) + 5 - min(max(left - 2, 0), 18)
        blocks = -(-down // 2) * -(-across // 16)
        expected += 2, 2 * height * width, 2 * down * across, 2 * blocks
    assert count == tuple(expected)


def vectors_requested(kernel, stage):
    """The model's bytes without the float32 numbers: log-sum-exp, delta and bias tables."""
    tiles = gpu_work.default_tiles(kernel, stage)
    count = gpu_work.count_map(stage, tiles, owns='keys' if kernel == 'keys' else 'queries')
    tables = 3 * 16 * 16 * count.tiles
    numbers = {
        'forward': count.tokens,
        'queries': 2 * count.tokens + tables,
        'keys': 2 * count.blocks * tiles.block_rows * tiles.block_columns,
    }
    return gpu_work.triton_kernel(kernel, stage).requested - 4 * numbers[kernel]


def test_flops_and_bytes_are_those_of_the_kernels(monkeypatch):
    """Counted while Triton's interpreter runs them, on a map with partial tiles on both axes."""
    interpreter = pytest.importorskip('triton.runtime.interpreter', reason='no Triton')
    counted = {}
    create_dot = interpreter.InterpreterBuilder.create_dot
    load = interpreter.InterpreterBuilder.create_masked_load
    store = interpreter.InterpreterBuilder.create_masked_store

    def dot(builder, a, b, *rest):
        counted['flops'] += 2 * a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
        return create_dot(builder, a, b, *rest)

    def counting_load(builder, pointers, mask, *rest):
        result = load(builder, pointers, mask, *rest)
        if result.data.dtype.itemsize == gpu_work.BYTES:
            counted['vectors'] += int(mask.data.sum()) * gpu_work.BYTES
        return result

    def counting_store(builder, pointers, data, mask, *rest):
        if data.data.dtype.itemsize == gpu_work.BYTES:
            counted['vectors'] += int(mask.data.sum()) * gpu_work.BYTES
        return store(builder, pointers, data, mask, *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_dot', dot)
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_masked_load', counting_load)
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_masked_store', counting_store)

    stage = StageMap(10, 19, 16, 1)
    case = Case(stage.height, stage.width, gpu_work.KERNEL_SIZE)
    options = dict(dtype=torch.float16, bias_dtype=torch.float32)
    inputs = make_inputs(case, batch=1, heads=1, head_dim=16, **options)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    counted.update(flops=0, vectors=0)
    output = run(case, 'triton', *inputs)
    assert counted['flops'] == gpu_work.triton_kernel('forward', stage).flops
    assert counted['vectors'] == vectors_requested('forward', stage)
    counted.update(flops=0, vectors=0)
    output.sum().backward()
    backward = ('queries', 'keys')
    assert counted['flops'] == sum(gpu_work.triton_kernel(name, stage).flops for name in backward)
    assert counted['vectors'] == sum(vectors_requested(name, stage) for name in backward)


@pytest.mark.parametrize('order', ['rows', 'tiles'])
@pytest.mark.parametrize('size', [(16, 16), (11, 21)], ids=str)
def test_touched_blocks_hold_a_neighbor(size, order):
    """Against the dense mask of all pairs of tokens."""
    height, width = size
    block, window = 32, (7, 5)
    rows, columns = (axis_window(n, k, 1)[0] for n, k in zip(size, window, strict=True))
    tokens = list(product(range(height), range(width)))
    if order == 'tiles':
        tokens.sort(key=lambda token: (token[0] // 8, token[1] // 4, *token))
    place = {token: number for number, token in enumerate(tokens)}
    touched = {
        (place[y, x] // block, place[row, column] // block)
        for y, x in tokens
        for row in rows[y].tolist()
        for column in columns[x].tolist()
    }
    found = gpu_work.touched_blocks(size, window, order=order, block=block)
    assert found == len(touched)


def test_the_least_work_is_that_of_the_definition():
    stage = StageMap(10, 12, 64, 2)
    work = gpu_work.least('forward', stage)
    # Two products over 49 neighbors and 32 channels; query, key, value, output, log-sum-exp.
    assert work.flops == 10 * 12 * 2 * 49 * 32 * 2 * 2
    assert work.transferred == 10 * 12 * 2 * (4 * 32 * 2 + 4)


@pytest.mark.parametrize('way', gpu_work.WAYS)
@pytest.mark.parametrize('mode', ['forward', 'backward'])
def test_no_way_costs_less_than_the_least(way, mode):
    stage = StageMap(25, 42, 512, 16)
    least, work = gpu_work.least(mode, stage), gpu_work.WAYS[way](mode, stage)
    assert all(mine >= its for mine, its in zip(work, least, strict=True))


def test_limits_are_work_over_peaks():
    gpu = gpu_cost.Gpu('x', 'sm_80', flops=1e12, bandwidth=1e9, multiprocessors=10, clock=1e9)
    limits = gpu_cost.predict(gpu_work.Work(2_000_000, 0, 3_000_000), gpu, 8_000)
    assert limits == pytest.approx((2e-6, 3e-3, 2e-7))


def test_the_documented_prediction_is_that_of_the_command(capsys):
    gpu_cost.main()
    assert (ROOT / 'docs' / 'gpu_prediction.md').read_text() == capsys.readouterr().out
