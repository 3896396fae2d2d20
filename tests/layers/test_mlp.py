"""Tests the MLP on maps that it processes in pieces."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nat_mm.layers import Mlp, recomputation


@pytest.fixture
def small_pieces(monkeypatch):
    """Splits hidden maps of 16 float64 channels into pieces of 3 tokens."""
    monkeypatch.setattr(recomputation, 'LARGEST_BYTES', 1000)
    monkeypatch.setattr(recomputation, 'PIECE_BYTES', 400)


def make_case(tokens=(2, 5, 2), drop_rate=0.0):
    torch.manual_seed(0)
    module = Mlp(8, 16, drop_rate=drop_rate).double()
    norm = recomputation.LayerNorm(8).double()
    nn.init.normal_(norm.weight)
    return module, norm, torch.randn(*tokens, 8, dtype=torch.float64)


def differentiate(module, norm, x):
    torch.manual_seed(1)
    x.requires_grad_()
    y = module(norm(x) if norm else x)
    parameters = [*module.parameters(), *(norm.parameters() if norm else ())]
    return y, *torch.autograd.grad(y.sin().sum(), [x, *parameters])


def test_pieces_are_the_tokens_in_order(small_pieces):
    x = torch.arange(2 * 5 * 2 * 8.0).view(2, 5, 2, 8).double()
    parts = recomputation.split_tokens(x, 16)
    assert [len(part) for part in parts] == [3, 3, 3, 3, 3, 3, 2]
    assert torch.equal(torch.cat(parts), x.view(20, 8))
    assert recomputation.split_tokens(x, 6) == (x,)
    assert recomputation.split_tokens(x.to('meta'), 16)[0].shape == x.shape


@pytest.mark.parametrize('with_norm', [True, False])
@pytest.mark.parametrize('tokens', [(2, 5, 2), (20,)])
def test_same_values_and_gradients_in_pieces(request, with_norm, tokens):
    module, norm, x = make_case(tokens)
    norm = norm if with_norm else None
    expected = differentiate(module, norm, x)
    request.getfixturevalue('small_pieces')
    torch.testing.assert_close(differentiate(module, norm, x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(module(norm(x) if norm else x), expected[0])


def test_dropout_comes_out_the_same_in_backward(monkeypatch, small_pieces):
    case = make_case(drop_rate=0.5)
    found = differentiate(*case)
    monkeypatch.setattr(recomputation, '_setting', lambda: False)
    torch.testing.assert_close(found, differentiate(*case))


def count_backward_flops():
    module, norm, x = make_case()
    y = module(norm(x.requires_grad_()))
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    return counter.get_total_flops()


def test_hidden_map_of_pieces_is_computed_again(request):
    expected = count_backward_flops() + 2 * 20 * 8 * 16
    request.getfixturevalue('small_pieces')
    assert count_backward_flops() == expected
