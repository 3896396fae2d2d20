"""Tests the C++ kernel with threads and processes."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import cpu
from tests.ops.kernel import needs_kernel
from tests.processes import ranks, run_alone, run_together

pytestmark = needs_kernel


def attend(seed):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(1, 40, 41, 3, 2, 8, generator=generator).unbind(3)
    query.requires_grad_()
    output = neighborhood_attention_2d(query, key, value, kernel_size=3, backend='cpu')
    return output.detach(), torch.autograd.grad(output.square().sum(), query)[0]


def same(found, wanted):
    return all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def fork():
    torch.set_num_threads(2)
    expected = attend(0)
    assert cpu.thread_count() == 2
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if cpu.thread_count() == 1 and same(attend(0), expected) else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert same(attend(0), expected)  # the parent's threads are still there


class Attended(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return attend(index)


def load_data():
    torch.set_num_threads(2)
    expected = [attend(index) for index in range(4)]
    loader = torch.utils.data.DataLoader(
        Attended(), batch_size=None, num_workers=2, multiprocessing_context='fork', timeout=60
    )
    for found, wanted in zip(loader, expected, strict=True):
        assert same(found, wanted)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system has no fork')
@pytest.mark.parametrize('function', [fork, load_data])
def test_forked_processes_compute_after_a_parallel_call(function):
    run_alone(function)


def count_threads():
    torch.set_num_threads(2)
    query = torch.randn(1, 40, 41, 2, 8)
    before = len(os.listdir('/proc/self/task'))
    neighborhood_attention_2d(query, query, query, kernel_size=3, backend='cpu')
    assert len(os.listdir('/proc/self/task')) == before + 1
    torch.randn(300, 300) @ torch.randn(300, 300)
    attend(0)
    libraries = set(re.findall(r'\S*gomp\S*', Path('/proc/self/maps').read_text()))
    threads = len(os.listdir('/proc/self/task'))
    attend(1)
    assert len(libraries) == 1, libraries
    assert threads > 1
    assert len(os.listdir('/proc/self/task')) == threads


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_threads_are_those_of_pytorch():
    run_alone(count_threads)


def gradients(module, images):
    module(images).square().mean().backward()
    return [parameter.grad for parameter in module.parameters()]


def compare_distributed_gradients(environment):
    os.environ.update(environment)
    dist.init_process_group('gloo')
    torch.manual_seed(0)
    images = torch.randn(2, 9, 12, 16)
    module = NeighborhoodAttention2D(16, 2, kernel_size=3, backend='cpu')
    expected = [grad.clone() for grad in gradients(module, images)]
    module.zero_grad()
    rank = dist.get_rank()
    for found, wanted in zip(
        gradients(DistributedDataParallel(module), images[rank : rank + 1]), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted)
    dist.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests gloo, which runs without a GPU')
def test_two_processes_have_the_gradients_of_one():
    run_together(compare_distributed_gradients, [(environment,) for environment in ranks(2)])
