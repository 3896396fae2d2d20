"""Tests that relative positional bias tables adapt to the kernel size of their new module."""

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from torch import nn

from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.layers.rpb import resize_rpb


def test_resize_keeps_constants_centre_and_corner_order():
    table = torch.linspace(-1, 1, 13).expand(2, 13, 13).contiguous()
    resized = resize_rpb(table, 11)
    assert resized.shape == (2, 21, 21)
    torch.testing.assert_close(resized[:, :, 10], table[:, :1, 6].expand(2, 21))
    assert (resized[:, :, 1:] > resized[:, :, :-1]).all()
    flat = torch.full((1, 5, 5), 0.3)
    torch.testing.assert_close(resize_rpb(flat, 7), torch.full((1, 13, 13), 0.3))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_resize_keeps_dtype(dtype):
    assert resize_rpb(torch.ones(2, 5, 5, dtype=dtype), 5).dtype == dtype


@pytest.mark.parametrize('kernel_size', [5, 11])
@pytest.mark.parametrize(
    'load', [nn.Module.load_state_dict, mmengine_load_state_dict], ids=['torch', 'mmengine']
)
def test_loading_into_a_whole_model_resizes(load, kernel_size, monkeypatch):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, logger: lines.append(line))
    source = nn.Sequential(nn.Identity(), NeighborhoodAttention2D(8, 2, kernel_size=7))
    target = nn.Sequential(nn.Identity(), NeighborhoodAttention2D(8, 2, kernel_size=kernel_size))
    state_dict = source.state_dict()
    load(target, state_dict, strict=True)
    torch.testing.assert_close(target[1].rpb, resize_rpb(source[1].rpb, kernel_size))
    assert state_dict['1.rpb'].shape == (2, 13, 13)
    assert lines == [
        '1.rpb: relative positional bias resized from kernel size 7 '
        f'to {kernel_size} by bicubic interpolation'
    ]


def test_equal_kernel_size_is_loaded_untouched():
    source, target = (NeighborhoodAttention2D(8, 2, kernel_size=5) for _ in range(2))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.rpb, target.rpb)


def test_table_of_other_heads_is_a_mismatch():
    source = NeighborhoodAttention2D(8, 4, kernel_size=7)
    target = NeighborhoodAttention2D(8, 2, kernel_size=5)
    with pytest.raises(RuntimeError, match='size mismatch for rpb'):
        target.load_state_dict(source.state_dict())
