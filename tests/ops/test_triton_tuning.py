"""Tests choosing tiles by trial, with a timer that does not measure."""

from itertools import product

import pytest
import torch

from tests.ops.cases import Case, make_inputs, outcome

pytest.importorskip('triton', reason='PyTorch without Triton')

from triton.runtime.errors import OutOfResources

from nat_mm.ops.backends.triton import tuning
from nat_mm.ops.backends.triton.tiles import GPUS, Tiles, choose_tiles

DEFAULT = Tiles(8, 8, 2, 16, warps=4, stages=2)
CANDIDATES = tuning.candidate_tiles('forward', DEFAULT)
CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(tuning, '_CHOSEN', {})


def choose(seconds, key='key'):
    """Returns the tiles chosen if candidate i takes ``seconds[i]``, and the candidates that ran."""
    tried = []

    def measure(function, device):
        function()
        time = seconds[len(tried) - 1]
        if isinstance(time, Exception):
            raise time
        return time

    return tuning.choose(key, CANDIDATES, tried.append, device=CPU, measure=measure), tried


def test_the_quickest_is_taken_and_kept():
    chosen, tried = choose([1.0, 0.9, 0.8, *[1.5] * 4])
    assert tried == CANDIDATES
    assert chosen == CANDIDATES[2]
    assert choose([1.0, *[0.1] * 6]) == (chosen, [])
    assert choose([0.1, *[1.0] * 6], key='other')[0] == DEFAULT


def test_a_gain_that_could_be_chance_does_not_count():
    assert choose([1.0, *[0.97] * 6])[0] == DEFAULT


def test_what_does_not_fit_the_gpu_is_passed_over():
    too_large = OutOfResources(200_000, 100_000, 'shared memory')
    assert choose([too_large, too_large, 0.5, *[1.0] * 4])[0] == CANDIDATES[2]


def test_nothing_is_timed_while_a_graph_is_recorded(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
    options = dict(device=torch.device('cuda'), measure=pytest.fail)
    assert tuning.choose('key', CANDIDATES, pytest.fail, **options) == DEFAULT
    assert choose([1.0, *[0.1] * 6]) == (DEFAULT, [])


def test_its_own_timer_takes_turns_of_a_function():
    calls = []
    assert tuning._seconds(lambda: calls.append(1), CPU) > 0
    assert len(calls) == 1 + tuning.REPEATS * tuning.CALLS


@pytest.mark.parametrize('gpu', GPUS)
@pytest.mark.parametrize('kernel', ['forward', 'queries', 'keys'])
def test_candidates_are_tiles_that_kernels_can_have(kernel, gpu):
    for size, item, head_dim in product((7, 13), (2, 4), (32, 64, 128)):
        default = choose_tiles(
            kernel,
            kernel_size=(size, size),
            head_dim=head_dim,
            bytes_per_element=item,
            gpu=gpu,
        )
        candidates = tuning.candidate_tiles(kernel, default)
        assert candidates[0] == default
        assert 4 <= len(set(candidates)) == len(candidates) <= 8
        for tiles in candidates:
            assert all(number & (number - 1) == 0 < number for number in tiles[:5])
            assert min(tiles.rows * tiles.columns, tiles.block_rows * tiles.block_columns) >= 16
            if gpu == 'hopper' and head_dim == 32:  # Triton 3.6 gets the others wrong
                assert tiles.warps < 8 or tiles.block_rows > 1
            if kernel == 'queries' and gpu != 'amd':
                # Triton 3.5 to 3.7 cannot multiply smaller float32 matrices on NVIDIA GPUs.
                assert tiles.rows * tiles.block_rows >= 16


@pytest.mark.usefixtures('poisoned_memory')
@pytest.mark.parametrize('number', range(6))
def test_every_candidate_gives_the_right_result(number, monkeypatch):
    """In Triton's interpreter, each kernel takes its candidate of this number, or its last."""
    chosen = {}

    def take(key, candidates, run, *, device):
        chosen[key[0]] = candidates[min(number, len(candidates) - 1)]
        return chosen[key[0]]

    monkeypatch.setattr(tuning, 'choose', take)
    monkeypatch.setenv('NAT_MM_TRITON_AUTOTUNE', '1')
    case = Case(5, 6, (5, 3))
    inputs = make_inputs(case, batch=1, heads=1, dtype=torch.float32)
    found = outcome(case, 'triton', inputs)
    expected = outcome(case, 'reference', inputs)
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, its)
    assert set(chosen) == {'forward', 'queries', 'keys'}
