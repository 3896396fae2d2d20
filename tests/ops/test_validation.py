"""Tests the operator's errors for wrong arguments."""

import pytest
import torch

from nat_mm.ops import neighborhood_attention_1d, neighborhood_attention_2d
from tests.ops.cases import Case, make_inputs

QUERY, KEY, VALUE, BIAS = make_inputs(Case(9, 11, 3))
TENSORS = ('query', 'key', 'value')
NESTED = torch.nested.nested_tensor(list(VALUE))


def call(query=QUERY, key=KEY, value=VALUE, bias=BIAS, kernel_size=3, **options):
    return neighborhood_attention_2d(
        query, key, value, bias=bias, kernel_size=kernel_size, **options
    )


def test_the_good_call_passes():
    assert call().shape == QUERY.shape


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'kernel_size': 4}, 'kernel_size must be odd and at least 3, got 4'),
        ({'kernel_size': 1}, 'kernel_size must be odd and at least 3, got 1'),
        (
            {'kernel_size': (1, 1)},
            r'kernel_size must be odd and at least 3, or 1 on one of the axes, got \(1, 1\)',
        ),
        ({'kernel_size': (3, 1)}, r'bias must have shape .* \[2, 5, 1\], got \[2, 5, 5\]'),
        ({'dilation': 0}, 'dilation must be at least 1, got 0'),
        ({'dilation': 4}, r'height of the map must be at least .* 3 \* 4 = 12, got 9'),
        ({'dilation': (1, 4)}, r'width of the map must be at least .* 3 \* 4 = 12, got 11'),
        ({'scale': 0.0}, 'scale must be finite and positive, got 0.0'),
        ({'scale': float('nan')}, 'scale must be finite and positive, got nan'),
        ({'scale': 10**400}, 'scale must be finite and positive, got 1000'),
        (dict.fromkeys(TENSORS, QUERY[..., :0]), r'head_dim must be at least 1, got .* 2, 0\)'),
        ({'query': QUERY.to_sparse()}, 'query must be a strided tensor, got a torch.sparse_coo'),
        ({'key': KEY.float().to_mkldnn(), 'query': QUERY.float()}, 'key .* got a torch._mkldnn'),
        ({'value': NESTED}, 'value must be a strided tensor, got a nested tensor'),
        ({'bias': BIAS.to_sparse()}, 'bias must be a strided tensor, got a torch.sparse_coo'),
        ({'query': QUERY[0]}, r'query must have 5 dimensions \[B, H, W, heads, head_dim\]'),
        ({'key': KEY[:, :-1]}, 'key must have the shape of query'),
        ({'value': VALUE[..., :2]}, 'value must have the shape of query'),
        ({'key': KEY.to('meta')}, 'key must be on the device of query, cpu, got meta'),
        ({'bias': BIAS[:, 1:]}, r'bias must have shape .* \[2, 5, 5\], got \[2, 4, 5\]'),
        ({'backend': 'cuda'}, "backend must be one of 'auto', .*'portable'.*, got 'cuda'"),
        ({'backend': 'natten'}, 'natten: supports only CUDA tensors'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        call(**arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'kernel_size': 3.0}, 'kernel_size must be an int or a pair of ints'),
        ({'kernel_size': (3, 3, 3)}, 'kernel_size must be an int or a pair of ints'),
        ({'dilation': True}, 'dilation must be an int or a pair of ints'),
        ({'scale': '1'}, 'scale must be a number or None, got str'),
        ({'backend': ['cpu']}, r"backend must be one of 'auto', .*, got \['cpu'\]"),
        ({'query': QUERY.numpy()}, 'query must be a tensor, got ndarray'),
        ({'query': QUERY.long()}, 'query must be one of .*, got torch.int64'),
        ({'key': KEY.float()}, 'key must have the dtype of query, torch.float64'),
        ({'bias': BIAS.long()}, 'bias must be one of .*, got torch.int64'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_types(arguments, message):
    with pytest.raises(TypeError, match=message):
        call(**arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'kernel_size': 1}, 'kernel_size must be at least 3, got 1'),
        ({'dilation': 4}, r'length of the sequence must be at least .* 3 \* 4 = 12, got 9'),
        ({'query': QUERY}, r'query must have 4 dimensions \[B, L, heads, head_dim\], got \(2, 9,'),
        ({'bias': BIAS}, r'bias must have shape \[heads, 2\*k - 1\] = \[2, 5\], got \[2, 5, 5\]'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_sequences(arguments, message):
    sequence = {'query': QUERY[:, :, 0], 'key': KEY[:, :, 0], 'value': VALUE[:, :, 0]}
    options = {**sequence, 'bias': BIAS[:, 0], 'kernel_size': 3}
    assert neighborhood_attention_1d(**options).shape == (2, 9, 2, 4)
    with pytest.raises(ValueError, match=message):
        neighborhood_attention_1d(**{**options, **arguments})
