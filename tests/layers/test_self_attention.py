"""Tests SelfAttention2D: values, gradients, maps of other sizes, wrong arguments."""

import pytest
import torch

from nat_mm.layers import NeighborhoodAttention2D, SelfAttention2D
from nat_mm.layers.rpb import resize_rpb


def make_attention(**options):
    torch.manual_seed(0)
    module = SelfAttention2D(8, 2, **{'map_size': 4, **options}).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def plain_attention(module, x, table):
    """Computes one pair of tokens and one head at a time from the module's parameters."""
    _, height, width, channels = x.shape
    size = channels // module.num_heads
    query, key, value = (x @ module.qkv.weight.T + module.qkv.bias).split(channels, dim=-1)
    mixed = torch.zeros_like(x)
    tokens = [(row, column) for row in range(height) for column in range(width)]
    for row, column in tokens:
        for head in range(module.num_heads):
            part = slice(head * size, (head + 1) * size)
            scores = [
                (query[:, row, column, part] * key[:, r, c, part]).sum(-1) / size**0.5
                + table[head, r - row + height - 1, c - column + width - 1]
                for r, c in tokens
            ]
            weights = torch.stack(scores, dim=-1).softmax(-1)
            values = torch.stack([value[:, r, c, part] for r, c in tokens])
            mixed[:, row, column, part] = torch.einsum('bn,nbd->bd', weights, values)
    return mixed @ module.proj.weight.T + module.proj.bias


@pytest.mark.parametrize('size', [(4, 4), (3, 5), (1, 6)], ids=lambda size: f'{size[0]}x{size[1]}')
def test_equals_plain_attention(size):
    module = make_attention()
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    with torch.no_grad():
        table = module.rpb if size == (4, 4) else resize_rpb(module.rpb, size)
        torch.testing.assert_close(module(x), plain_attention(module, x, table))


def test_equals_neighborhood_attention_whose_window_is_the_map():
    module = make_attention(map_size=5)
    neighborhood = NeighborhoodAttention2D(8, 2, kernel_size=5).double()
    neighborhood.load_state_dict(module.state_dict())
    x = torch.randn(3, 5, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(x), neighborhood(x))


def test_without_bias_tokens_have_no_places():
    module = make_attention(relative_position_bias=False)
    x = torch.randn(1, 3, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        turned = module(x.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(turned, module(x))


@pytest.mark.parametrize('size', [(2, 2), (2, 3)], ids=['map size', 'another size'])
def test_gradients(size):
    module = make_attention(map_size=2)
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    inputs = [x, *module.parameters()]
    names = [name for name, _ in module.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), x)

    assert torch.autograd.gradcheck(run, inputs)


def test_autocast():
    module = make_attention().float()
    x = torch.randn(1, 4, 4, 8)
    with torch.autocast('cpu', torch.bfloat16):
        output = module(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), module(x), atol=0.5, rtol=0.05)
    output.sum().backward()
    assert module.rpb.grad.isfinite().all()


def test_empty_batch():
    assert make_attention()(torch.zeros(0, 3, 5, 8, dtype=torch.float64)).shape == (0, 3, 5, 8)


def test_loading_the_table_of_another_map_size(monkeypatch):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, logger: lines.append(line))
    source, target = make_attention(), make_attention(map_size=6)
    target.load_state_dict(source.state_dict())
    torch.testing.assert_close(target.rpb, resize_rpb(source.rpb, 6))
    assert lines == [
        'rpb: relative positional bias resized from map size 4 to 6 by bicubic interpolation'
    ]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(map_size=0), 'map_size must be at least 1, got 0'),
        (dict(num_heads=3), 'num_heads must divide channels, but 3 does not divide 8'),
    ],
    ids=['no map', 'heads'],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SelfAttention2D(**{'channels': 8, 'num_heads': 2, **options})
