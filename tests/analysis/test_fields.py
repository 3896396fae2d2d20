"""Tests receptive fields against autograd and attention rollout against dense matrices."""

import pytest
import torch

from nat_mm.analysis import attention_rollouts, attention_windows, receptive_fields
from nat_mm.analysis.windows import Layer, record_queries_and_keys
from tests.analysis.conftest import make_backbone
from tests.ops.oracle import neighbors as oracle_neighbors


def output_of(backbone, image, layer):
    """Returns the output of a layer, [H', W', C], with gradients."""
    outputs = []
    block = backbone.stages[layer.stage].blocks[layer.block]
    handle = block.register_forward_hook(lambda module, args, output: outputs.append(output))
    backbone(image)
    handle.remove()
    return outputs[0][0]


@pytest.mark.parametrize(
    ('kind', 'layer', 'point'),
    [
        ('NAT', (0, 0), (70, 50)),
        ('NAT', (1, 1), (70, 50)),
        ('DiNAT', (0, 1), (3, 3)),
        ('DiNAT', (1, 1), (100, 200)),
        ('DiNAT_s', (1, 0), (150, 90)),
        ('DiNAT_s', (2, 0), (190, 10)),
    ],
    ids=str,
)
def test_fields_are_where_gradients_arrive(kind, layer, point):
    dilations = ((1, 3), (1, 2), (1, 2), (1,))
    options = {} if kind == 'NAT' else {'dilations': dilations}
    backbone = make_backbone(kind, attention_backend='portable', **options).double()
    image = torch.randn(1, 3, 218, 193, dtype=torch.float64, requires_grad=True)
    field = receptive_fields(backbone, image, point=point, stage=layer[0], block=layer[1])[-1]
    stride = 4 * 2 ** layer[0]
    token = output_of(backbone, image, Layer(*layer))[point[1] // stride, point[0] // stride]
    (gradient,) = torch.autograd.grad(token @ torch.randn_like(token), image)
    reached = (gradient[0] != 0).any(dim=0)
    assert field.layer == layer
    assert reached.any()
    assert not reached.all()
    torch.testing.assert_close(field.pixels, reached, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('pattern', 'layer', 'point'),
    [
        ('sasa', (0, 1), (3, 50)),
        ('sasa', (1, 1), (150, 90)),
        ('shifted_window', (0, 0), (70, 50)),
        ('shifted_window', (0, 1), (2, 90)),
        ('shifted_window', (1, 1), (150, 3)),
        ('full', (0, 0), (70, 50)),
    ],
    ids=str,
)
def test_fields_of_other_patterns_are_where_gradients_arrive(pattern, layer, point):
    backbone = make_backbone('NAT', attention=pattern, kernel_size=5).double()
    image = torch.randn(1, 3, 130, 193, dtype=torch.float64, requires_grad=True)
    field = receptive_fields(backbone, image, point=point, stage=layer[0], block=layer[1])[-1]
    stride = 4 * 2 ** layer[0]
    token = output_of(backbone, image, Layer(*layer))[point[1] // stride, point[0] // stride]
    (gradient,) = torch.autograd.grad(token @ torch.randn_like(token), image)
    reached = (gradient[0] != 0).any(dim=0)
    assert reached.all() == (pattern == 'full')
    torch.testing.assert_close(field.pixels, reached, rtol=0, atol=0)


@pytest.mark.parametrize('look', [attention_windows, attention_rollouts])
def test_weights_are_those_of_neighborhoods_only(look, image):
    backbone = make_backbone('NAT', attention='sasa')
    point = {'points': [(3, 3)]} if look is attention_windows else {'point': (3, 3)}
    with pytest.raises(ValueError, match=r"attention='neighborhood'.* StandAloneAttention2D"):
        look(backbone, image, **point)


def test_a_map_smaller_than_the_window_sees_all_of_itself():
    backbone = make_backbone('NAT', kernel_size=7)
    fields = receptive_fields(backbone, torch.empty(1, 3, 70, 50), point=(0, 69))
    assert fields[-1].layer == (3, 0)
    assert fields[-1].pixels.all()
    assert fields[-1].pixels.shape == (70, 50)


def test_fields_grow_within_a_stage():
    backbone = make_backbone('DiNAT')
    fields = receptive_fields(backbone, torch.empty(1, 3, 300, 300), point=(150, 150))
    assert [field.layer for field in fields] == [
        (stage, block) for stage, depth in enumerate((2, 2, 2, 1)) for block in range(depth)
    ]
    for smaller, larger in zip(fields, fields[1:], strict=False):
        if larger.layer.block:
            assert (smaller.pixels & ~larger.pixels).sum() == 0
            assert larger.pixels.sum() > smaller.pixels.sum()


def dense_attention(backbone, image, layer):
    """Computes the weights of all tokens on all tokens, averaged over heads, by definition."""
    attention = backbone.stages[layer.stage].blocks[layer.block].attn
    query, key = (tensor[0] for tensor in record_queries_and_keys(backbone, image, [layer])[layer])
    height, width, heads, head_dim = query.shape
    size, step = attention.kernel_size, attention.dilation
    matrix = torch.zeros(height * width, height * width)
    for y in range(height):
        for x in range(width):
            rows = oracle_neighbors(y, height, size, step)
            columns = oracle_neighbors(x, width, size, step)
            for head in range(heads):
                scores = torch.stack(
                    [
                        head_dim**-0.5 * query[y, x, head] @ key[i, j, head]
                        + attention.rpb[
                            head, (i - y) // step + size - 1, (j - x) // step + size - 1
                        ]
                        for i in rows
                        for j in columns
                    ]
                )
                numbers = [i * width + j for i in rows for j in columns]
                matrix[y * width + x, numbers] += scores.softmax(0).detach() / heads
    return matrix


def test_rollout_multiplies_the_weights_of_the_layers():
    backbone = make_backbone('DiNAT_s', dilations=((1, 2), (1, 1), (1, 1), (1,)))
    image = torch.randn(1, 3, 36, 36)
    rollouts = attention_rollouts(backbone, image, point=(20, 26), stage=1, block=0)
    assert [layer for layer, _ in rollouts] == [(0, 0), (0, 1), (1, 0)]
    # A token of stage 0 gets all of its 4 x 4 pixels, a token of stage 1 those of its 2 x 2 tokens
    # that are on the 9 x 9 map.
    merged = torch.zeros(5, 5, 9, 9)
    for y in range(9):
        for x in range(9):
            merged[y // 2, x // 2, y, x] = 1
    merged = (merged / merged.sum((2, 3), keepdim=True)).view(25, 81)
    matrix = torch.eye(81)
    for layer, shares in rollouts:
        if layer == (1, 0):
            matrix = merged @ matrix
        attention = dense_attention(backbone, image, layer)
        matrix = (torch.eye(len(attention)) + attention) / 2 @ matrix
        token = 3 * 5 + 2 if layer.stage else 6 * 9 + 5
        pixels = matrix[token].view(9, 9).repeat_interleave(4, 0).repeat_interleave(4, 1) / 16
        torch.testing.assert_close(shares, pixels, rtol=1e-4, atol=1e-8)


def test_rollout_stays_within_the_receptive_field():
    backbone = make_backbone('NAT')
    image = torch.randn(1, 3, 218, 193)
    options = {'point': (60, 10), 'stage': 1}
    fields = receptive_fields(backbone, image, **options)[-2:]
    rollouts = attention_rollouts(backbone, image, **options, last=2)
    for field, (layer, shares) in zip(fields, rollouts, strict=True):
        assert layer == field.layer
        assert shares[~field.pixels].abs().max() == 0
        assert shares.sum().item() == pytest.approx(1, abs=1e-4)


def test_rollout_leaves_out_what_falls_on_padding():
    backbone = make_backbone('NAT', kernel_size=7)
    image = torch.randn(1, 3, 70, 50)
    ((_, shares),) = attention_rollouts(backbone, image, point=(0, 69), last=1)
    assert 0.2 < shares.sum() < 0.99


@pytest.mark.parametrize(('last', 'error'), [(0, ValueError), (-1, ValueError), (1.0, TypeError)])
def test_rollouts_of_no_layers_are_refused(image, last, error):
    with pytest.raises(error, match=f'last must be .*at least 1, got {last}'):
        attention_rollouts(make_backbone('NAT'), image, point=(3, 3), last=last)
