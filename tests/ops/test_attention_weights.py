"""Tests the weights of neighborhood attention against the operator itself."""

import pytest
import torch

from nat_mm.ops import neighborhood_attention_2d, neighborhood_attention_weights
from nat_mm.ops.backends import BACKENDS
from tests.ops.cases import CASES, SMALL_CASES, Case, make_inputs
from tests.ops.oracle import neighbors as oracle_neighbors


def options(case):
    return {'kernel_size': case.kernel_size, 'dilation': case.dilation}


def dense_weights(weights, neighbors, height, width):
    """Spreads weights [B, H, W, heads, k * k] over all tokens: [B, H, W, heads, H * W]."""
    index = neighbors[..., 0] * width + neighbors[..., 1]
    index = index[None, :, :, None].expand(weights.shape)
    dense = weights.new_zeros(*weights.shape[:-1], height * width)
    return dense.scatter_add(-1, index, weights)


def weights_of_operator(query, key, bias, case, backend, scale=None):
    """Returns the operator's output for values that are one-hot over the tokens."""
    batch, height, width, heads, head_dim = query.shape
    tokens = height * width
    columns = []
    for one_hot in torch.eye(tokens, dtype=query.dtype).split(head_dim, dim=1):
        value = torch.zeros_like(query).contiguous()
        shape = (height, width, 1, one_hot.shape[1])
        value[..., : one_hot.shape[1]] = one_hot.view(shape)
        output = neighborhood_attention_2d(
            query, key, value, bias=bias, scale=scale, backend=backend, **options(case)
        )
        columns.append(output[..., : one_hot.shape[1]])
    return torch.cat(columns, dim=-1)


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no-bias'])
@pytest.mark.parametrize('case', SMALL_CASES, ids=lambda case: case.name)
def test_weights_are_those_of_the_reference(case, bias):
    query, key, _, table = make_inputs(case, bias=bias)
    weights, neighbors = neighborhood_attention_weights(query, key, bias=table, **options(case))
    dense = dense_weights(weights, neighbors, case.height, case.width)
    expected = weights_of_operator(query, key, table, case, 'reference')
    torch.testing.assert_close(dense, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('backend', sorted(set(BACKENDS) - {'natten', 'triton'}))
def test_any_backend_attends_by_these_weights(backend):
    case = Case(7, 9, 3, 2)
    query, key, _, bias = make_inputs(case, head_dim=8, dtype=torch.float32)
    if BACKENDS[backend].unsupported_reasons(query, bias, case.kernel_pair):
        pytest.skip(f'{backend} cannot serve here')
    weights, neighbors = neighborhood_attention_weights(
        query, key, bias=bias, scale=0.7, **options(case)
    )
    dense = dense_weights(weights, neighbors, case.height, case.width)
    expected = weights_of_operator(query, key, bias, case, backend, scale=0.7)
    torch.testing.assert_close(dense, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_weighted_neighbors_give_the_result(case):
    query, key, value, bias = make_inputs(case)
    weights, neighbors = neighborhood_attention_weights(query, key, bias=bias, **options(case))
    near = value[:, neighbors[..., 0], neighbors[..., 1]]
    output = torch.einsum('byxnk,byxknd->byxnd', weights, near)
    expected = neighborhood_attention_2d(
        query, key, value, bias=bias, backend='reference', **options(case)
    )
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_positions_choose_among_all(case):
    query, key, _, bias = make_inputs(case)
    height, width = case.height, case.width
    positions = [[0, 0], [height - 1, width // 2], [height // 2, 0], [height - 1, width - 1]]
    weights, neighbors = neighborhood_attention_weights(
        query, key, bias=bias, positions=positions, **options(case)
    )
    rows, columns = torch.tensor(positions).T
    all_weights, all_neighbors = neighborhood_attention_weights(
        query, key, bias=bias, **options(case)
    )
    torch.testing.assert_close(weights, all_weights[:, rows, columns])
    torch.testing.assert_close(neighbors, all_neighbors[rows, columns], rtol=0, atol=0)
    for (row, column), found in zip(positions, neighbors.tolist(), strict=True):
        near_rows = oracle_neighbors(row, height, case.kernel_pair[0], case.dilation_pair[0])
        near_columns = oracle_neighbors(column, width, case.kernel_pair[1], case.dilation_pair[1])
        assert found == [[y, x] for y in near_rows for x in near_columns]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_weights_of_low_precision_are_float32(dtype):
    case = Case(9, 8, 5)
    query, key, _, bias = make_inputs(case, dtype=dtype, bias_dtype=torch.float32)
    weights, _ = neighborhood_attention_weights(query, key, bias=bias, **options(case))
    exact, _ = neighborhood_attention_weights(
        query.double(), key.double(), bias=bias.double(), **options(case)
    )
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.double(), exact, rtol=1e-4, atol=1e-6)


def test_autocast_rounds_query_and_key_as_it_does_for_the_operator():
    case = Case(9, 8, 5)
    query, key, _, bias = make_inputs(case, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        weights, _ = neighborhood_attention_weights(query, key, bias=bias, **options(case))
    rounded, _ = neighborhood_attention_weights(
        query.bfloat16(), key.bfloat16(), bias=bias, **options(case)
    )
    torch.testing.assert_close(weights, rounded, rtol=0, atol=0)


def test_large_maps_are_computed_in_parts_that_fit_together(monkeypatch):
    case = Case(13, 10, 5)
    query, key, _, bias = make_inputs(case)
    whole, _ = neighborhood_attention_weights(query, key, bias=bias, **options(case))
    monkeypatch.setattr('nat_mm.ops.attention_weights._TOKENS_AT_ONCE', 17)
    parts, _ = neighborhood_attention_weights(query, key, bias=bias, **options(case))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-15)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16, torch.int32], ids=str)
def test_positions_of_any_integer_type(dtype):
    query, key, _, _ = make_inputs(Case(5, 7, 3))
    positions = torch.tensor([[4, 6], [0, 3]])
    expected = neighborhood_attention_weights(query, key, kernel_size=3, positions=positions)
    found = neighborhood_attention_weights(query, key, kernel_size=3, positions=positions.to(dtype))
    assert torch.equal(found[0], expected[0])


def test_shapes_on_the_meta_device():
    query = torch.empty(2, 5, 7, 3, 4, device='meta')
    weights, neighbors = neighborhood_attention_weights(query, query, kernel_size=3)
    assert weights.shape == (2, 5, 7, 3, 9)
    assert neighbors.shape == (5, 7, 9, 2)


@pytest.mark.parametrize(
    ('batch', 'positions', 'shape'),
    [(0, None, (0, 5, 7, 2, 9)), (2, [], (2, 0, 2, 9))],
    ids=['no-images', 'no-positions'],
)
def test_nothing_to_look_at_gives_empty_weights(batch, positions, shape):
    case = Case(5, 7, 3)
    query, key, _, bias = make_inputs(case, batch=batch)
    weights, neighbors = neighborhood_attention_weights(
        query, key, bias=bias, positions=positions, **options(case)
    )
    assert weights.shape == shape
    assert neighbors.shape == ((0, 9, 2) if positions == [] else (5, 7, 9, 2))


def test_gradients_reach_query_key_and_bias():
    case = Case(3, 5, 3)
    query, key, _, bias = (
        tensor.clone().requires_grad_() for tensor in make_inputs(case, batch=1, head_dim=2)
    )

    def weights(query, key, bias):
        return neighborhood_attention_weights(query, key, bias=bias, **options(case))[0]

    assert torch.autograd.gradcheck(weights, (query, key, bias))


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'kernel_size': 4}, ValueError, 'kernel_size must be odd .* got 4'),
        ({'dilation': 3}, ValueError, 'height of the map must be at least .* = 9, got 5'),
        ({'scale': 0}, ValueError, 'scale must be finite and positive, got 0'),
        ({'bias': torch.zeros(2, 3, 3)}, ValueError, r'bias must have shape .* \[2, 5, 5\]'),
        ({'key': torch.zeros(1, 5, 7, 2, 3)}, ValueError, 'key must have the shape of query'),
        ({'key': None}, TypeError, 'key must be a tensor, got NoneType'),
        ({'positions': [[5, 0]]}, ValueError, r'rows below 5 and columns below 7, got \[5, 0\]'),
        ({'positions': [[0, -1]]}, ValueError, r'columns below 7, got \[0, -1\]'),
        ({'positions': [1, 2]}, ValueError, r'positions must have shape \[N, 2\].* got \[2\]'),
        ({'positions': [[0.5, 1.0]]}, TypeError, 'positions must be integers .* torch.float32'),
        ({'positions': [['a', 'b']]}, TypeError, 'positions must be .* integers'),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_mistakes_are_named(changes, error, message):
    query = torch.zeros(1, 5, 7, 2, 4)
    arguments = {'key': query, 'kernel_size': 3} | changes
    with pytest.raises(error, match=message):
        neighborhood_attention_weights(query, **arguments)
