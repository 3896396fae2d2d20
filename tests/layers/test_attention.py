"""Tests NeighborhoodAttention2D: values, padding of small maps, names, wrong arguments."""

import pytest
import torch
from torch.nn.functional import pad

from nat_mm.layers import NeighborhoodAttention2D, neighborhood_attention


def window(position, length, kernel_size, dilation):
    """Returns the neighbors of a position on one axis and their indices into the bias table."""
    same_class = [i for i in range(length) if i % dilation == position % dilation]
    rank = same_class.index(position)
    start = min(max(rank - kernel_size // 2, 0), len(same_class) - kernel_size)
    chosen = range(start, start + kernel_size)
    return [(same_class[i], i - rank + kernel_size - 1) for i in chosen]


def plain_attention(module, x):
    """Computes one token and one head at a time from the module's parameters."""
    _, height, width, channels = x.shape
    size = channels // module.num_heads
    projected = x @ module.qkv.weight.T + module.qkv.bias
    query, key, value = projected.split(channels, dim=-1)
    mixed = torch.zeros_like(x)
    for row in range(height):
        rows = window(row, height, module.kernel_size, module.dilation)
        for column in range(width):
            columns = window(column, width, module.kernel_size, module.dilation)
            for head in range(module.num_heads):
                part = slice(head * size, (head + 1) * size)
                scores, values = [], []
                for r, bias_row in rows:
                    for c, bias_column in columns:
                        score = (query[:, row, column, part] * key[:, r, c, part]).sum(-1)
                        bias = module.rpb[head, bias_row, bias_column]
                        scores.append(score / size**0.5 + bias)
                        values.append(value[:, r, c, part])
                weights = torch.stack(scores, dim=-1).softmax(-1)
                mixed[:, row, column, part] = torch.einsum(
                    'bn,nbd->bd', weights, torch.stack(values)
                )
    return mixed @ module.proj.weight.T + module.proj.bias


def make_attention(**options):
    torch.manual_seed(0)
    options = {'kernel_size': 3, **options}
    module = NeighborhoodAttention2D(8, 2, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


@pytest.mark.parametrize(
    ('dilation', 'size'),
    [(1, (3, 5)), (1, (4, 3)), (2, (6, 7)), (2, (9, 6))],
    ids=['exact height', 'exact width', 'dilated', 'dilated odd'],
)
def test_equals_plain_attention(dilation, size):
    module = make_attention(dilation=dilation)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(x), plain_attention(module, x))


@pytest.mark.parametrize(
    ('size', 'padded'),
    [((1, 1), (6, 6)), ((5, 4), (6, 6)), ((5, 9), (6, 9)), ((8, 2), (8, 6)), ((6, 6), (6, 6))],
    ids=lambda size: 'x'.join(map(str, size)),
)
def test_small_map_is_zero_padded_right_and_bottom(size, padded):
    module = make_attention(dilation=2)
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    x_padded = pad(x, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0]))
    with torch.no_grad():
        expected = plain_attention(module, x_padded)[:, : size[0], : size[1]]
        torch.testing.assert_close(module(x), expected)


def test_query_key_value_are_views_of_one_projection(monkeypatch):
    module = make_attention()
    seen = []

    def spy(query, key, value, **options):
        seen.extend([query, key, value])
        return query.contiguous()

    monkeypatch.setattr(neighborhood_attention, 'neighborhood_attention_2d', spy)
    module(torch.randn(2, 4, 5, 8, dtype=torch.float64))
    assert [tuple(part.shape) for part in seen] == [(2, 4, 5, 2, 4)] * 3
    assert len({part.untyped_storage().data_ptr() for part in seen}) == 1
    assert [part.storage_offset() for part in seen] == [0, 8, 16]


def test_attributes_and_parameters():
    module = NeighborhoodAttention2D(12, 3, kernel_size=5, dilation=2)
    assert (module.kernel_size, module.dilation, module.num_heads, module.scale) == (5, 2, 3, 0.5)
    assert {name: tuple(each.shape) for name, each in module.named_parameters()} == {
        'rpb': (3, 9, 9),
        'qkv.weight': (36, 12),
        'qkv.bias': (36,),
        'proj.weight': (12, 12),
        'proj.bias': (12,),
    }
    assert 0.01 < module.rpb.std() < 0.03


def test_without_biases():
    module = make_attention(qkv_bias=False, relative_position_bias=False)
    assert sorted(dict(module.named_parameters())) == ['proj.bias', 'proj.weight', 'qkv.weight']
    assert module.rpb is None
    x = torch.randn(1, 4, 5, 8, dtype=torch.float64)
    with_zero_bias = make_attention()
    with torch.no_grad():
        with_zero_bias.qkv.weight.copy_(module.qkv.weight)
        with_zero_bias.proj.load_state_dict(module.proj.state_dict())
        with_zero_bias.qkv.bias.zero_()
        with_zero_bias.rpb.zero_()
        torch.testing.assert_close(module(x), with_zero_bias(x))


def test_drop_rate_acts_in_training_only():
    module = make_attention(drop_rate=0.5)
    x = torch.randn(1, 4, 5, 8, dtype=torch.float64)
    assert (module.train()(x) == 0).any()
    assert not (module.eval()(x) == 0).any()


def test_empty_batch():
    assert make_attention()(torch.zeros(0, 2, 5, 8, dtype=torch.float64)).shape == (0, 2, 5, 8)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'kernel_size': 4}, ValueError, 'kernel_size must be odd.*got 4; use 3 or 5'),
        ({'kernel_size': 1}, ValueError, 'kernel_size must be at least 3, got 1'),
        ({'kernel_size': [7, 7]}, TypeError, r'kernel_size must be an int.*got \[7, 7\]'),
        ({'kernel_size': True}, TypeError, 'kernel_size must be an int'),
        ({'dilation': 0}, ValueError, 'dilation must be at least 1, got 0'),
        ({'dilation': 1.5}, TypeError, 'dilation must be an int'),
        ({'num_heads': 5}, ValueError, 'num_heads must divide channels.*5 does not divide 12'),
        ({'num_heads': 0}, ValueError, 'num_heads must be at least 1'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_wrong_argument(options, error, message):
    options = {'num_heads': 3, **options}
    with pytest.raises(error, match=message):
        NeighborhoodAttention2D(12, **options)
