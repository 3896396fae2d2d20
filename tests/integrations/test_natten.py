"""Tests NATTEN 0.17's functions and modules: argument order, layouts, values and derivatives."""

import sys

import pytest
import torch
from torch.testing import assert_close

from nat_mm.integrations import natten
from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.ops import neighborhood_attention_1d, neighborhood_attention_2d


def sequences(length=17, **options):
    generator = torch.Generator().manual_seed(0)
    tensors = torch.randn(3, 2, 3, length, 4, generator=generator, dtype=torch.float64, **options)
    return tensors.unbind()


def maps(height=9, width=11):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 3, height, width, 4, generator=generator, dtype=torch.float64).unbind()


def table(*lengths):
    return torch.randn(3, *lengths, generator=torch.Generator().manual_seed(1)).double()


def test_two_halves_on_a_map_are_the_operator():
    query, key, value = maps()
    rpb = table(9, 5)
    scores = natten.na2d_qk(0.5 * query, key, (5, 3), (1, 2), rpb=rpb)
    assert scores.shape == (2, 3, 9, 11, 15)
    output = natten.na2d_av(scores.softmax(-1), value, (5, 3), (1, 2))
    expected = neighborhood_attention_2d(
        *(tensor.movedim(1, 3) for tensor in (query, key, value)),
        kernel_size=(5, 3),
        dilation=(1, 2),
        bias=rpb,
        scale=0.5,
        backend='reference',
    )
    assert_close(output.movedim(1, 3), expected)


def test_two_halves_of_a_sequence_by_the_definition():
    """At a border, the window is shifted; neighbors come in order, the bias by distance."""
    query, key, value = sequences(7)
    rpb = table(5)
    scores = natten.na1d_qk(query, key, 3, 2, rpb=rpb)
    sums = natten.na1d_av(scores, value, 3, 2)
    near = [[0, 2, 4], [1, 3, 5], [0, 2, 4], [1, 3, 5], [2, 4, 6], [1, 3, 5], [2, 4, 6]]
    for token, neighbors in enumerate(near):
        bias = rpb[:, [(other - token) // 2 + 2 for other in neighbors]]
        products = torch.einsum('bnd,bnkd->bnk', query[:, :, token], key[:, :, neighbors])
        assert_close(scores[:, :, token], products + bias)
        weighted = torch.einsum('bnk,bnkd->bnd', scores[:, :, token], value[:, :, neighbors])
        assert_close(sums[:, :, token], weighted)


@pytest.mark.parametrize('rpb', [True, False], ids=['rpb', 'no rpb'])
def test_oldest_names(rpb):
    query, key, value = maps()
    tables = (table(5), table(5, 5)) if rpb else (None, None)
    scores = natten.natten2dqkrpb(query, key, tables[1], 3, 2)
    assert_close(scores, natten.na2d_qk(query, key, 3, 2, rpb=tables[1]))
    assert_close(natten.natten2dav(scores, value, 3, 2), natten.na2d_av(scores, value, 3, 2))
    assert_close(natten.natten2dqk(query, key, 3, 2), natten.na2d_qk(query, key, (3, 3), [2, 2]))
    query, key, value = sequences()
    scores = natten.natten1dqkrpb(query, key, tables[0], 3, 2)
    assert_close(scores, natten.na1d_qk(query, key, (3,), (2,), rpb=tables[0]))
    assert_close(natten.natten1dav(scores, value, 3, 2), natten.na1d_av(scores, value, [3], 2))
    assert_close(natten.natten1dqk(query, key, 3, 2), natten.na1d_qk(query, key, 3, 2))


def test_fused_names():
    query, key, value = (tensor.movedim(1, 3) for tensor in maps())
    options = dict(kernel_size=3, dilation=2, scale=0.7)
    assert_close(
        natten.na2d(query, key, value, 3, 2, rpb=table(5, 5), scale=0.7),
        neighborhood_attention_2d(query, key, value, bias=table(5, 5), **options),
    )
    query, key, value = (tensor.movedim(1, 2) for tensor in sequences())
    assert_close(
        natten.na1d(query, key, value, 3, 2, rpb=table(5), scale=0.7),
        neighborhood_attention_1d(query, key, value, bias=table(5), **options),
    )


@pytest.mark.parametrize('axes', [1, 2], ids=['sequence', 'map'])
def test_derivatives(axes):
    qk, av = ((natten.na1d_qk, natten.na1d_av), (natten.na2d_qk, natten.na2d_av))[axes - 1]
    tensors = [t[:1, :2, :7].requires_grad_() for t in (sequences(7), maps(7, 7))[axes - 1]]
    rpb = table(*[5] * axes)[:2].requires_grad_()

    def attend(query, key, value, rpb):
        return av(qk(query, key, 3, 2, rpb=rpb).softmax(-1), value, 3, 2)

    assert torch.autograd.gradcheck(attend, (*tensors, rpb), fast_mode=True)


@pytest.mark.parametrize('rel_pos_bias', [True, False], ids=['rpb', 'no rpb'])
def test_module_for_maps_is_ours(rel_pos_bias):
    torch.manual_seed(0)
    theirs = natten.NeighborhoodAttention2D(32, 4, 5, 2, rel_pos_bias=rel_pos_bias)
    ours = NeighborhoodAttention2D(
        32, 4, kernel_size=5, dilation=2, relative_position_bias=rel_pos_bias
    )
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 13, 11, 32)
    assert_close(theirs(x), ours(x))


@pytest.mark.parametrize('size', [(17,), (9, 11)], ids=['sequence', 'map'])
def test_module_with_dropout_of_weights_uses_the_same_parameters(size):
    """With dropout, the two halves run in training; without it, the fused operator runs."""
    kind = natten.NeighborhoodAttention1D if len(size) == 1 else natten.NeighborhoodAttention2D
    torch.manual_seed(0)
    module = kind(32, 4, 3, dilation=2, rel_pos_bias=True, attn_drop=1e-12)
    x = torch.randn(2, *size, 32)
    assert_close(module.train()(x), module.eval()(x))
    module.attn_drop.p = 0.5
    assert (module.train()(x) - module.eval()(x)).abs().max() > 1e-2


QUERY, KEY, VALUE = maps()


@pytest.mark.parametrize(
    ('call', 'error', 'message'),
    [
        (lambda: natten.na2d_qk(QUERY, KEY, 3, is_causal=True), NotImplementedError, 'causal'),
        (
            lambda: natten.na2d(QUERY, KEY, VALUE, 3, is_causal=(False, True)),
            NotImplementedError,
            r'causal .*got is_causal=\(False, True\)',
        ),
        (
            lambda: natten.na2d_qk(QUERY, KEY, 3, additional_keys=KEY),
            NotImplementedError,
            'additional_keys must be None',
        ),
        (lambda: natten.na3d(QUERY, KEY, VALUE, 3), NotImplementedError, 'three dimensions'),
        (
            lambda: natten.na2d_qk(QUERY[0], KEY, 3),
            ValueError,
            r'query must have 5 dimensions \[B, heads, H, W, D\], got \(3, 9, 11, 4\)',
        ),
        (lambda: natten.na1d_qk(QUERY, KEY, 3), ValueError, r'4 dimensions \[B, heads, L, D\]'),
        (
            lambda: natten.na2d_qk(QUERY, KEY[:, :, 1:], 3),
            ValueError,
            r'query and key must have the same .*, got \(2, 3, 9, 11, 4\) and \(2, 3, 8, 11, 4\)',
        ),
        (
            lambda: natten.na2d_av(torch.ones(2, 3, 9, 11, 8), VALUE, 3),
            ValueError,
            'a weight for each of 9 neighbors, got 8',
        ),
        (lambda: natten.na2d_qk(QUERY, KEY, 4), ValueError, 'kernel_size must be odd'),
        (lambda: natten.na2d_qk(QUERY, KEY, 3, 0), ValueError, 'dilation must be at least 1'),
        (
            lambda: natten.na2d_qk(QUERY, KEY, 3, 4),
            ValueError,
            r'height of the map must be at least .* 3 \* 4 = 12, got 9',
        ),
        (
            lambda: natten.natten2dqkrpb(QUERY, KEY, table(5, 4), 3, 1),
            ValueError,
            r'bias must have shape .* = \[3, 5, 5\], got \[3, 5, 4\]',
        ),
        (lambda: natten.NeighborhoodAttention1D(30, 4, 3), ValueError, '4 does not divide 30'),
    ],
    ids=[
        'causal',
        'causal on one axis',
        'additional keys',
        'three dimensions',
        'no batch',
        'map as sequence',
        'other map',
        'weights of another window',
        'even kernel size',
        'dilation 0',
        'small map',
        'rpb of another window',
        'heads',
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.fixture
def provided(monkeypatch):
    for name in ('natten', 'natten.functional'):
        monkeypatch.setitem(sys.modules, name, None)
    natten.provide_natten()


def test_code_that_imports_natten(provided):
    from natten import NeighborhoodAttention2D as FromNatten
    from natten.functional import natten2dav, natten2dqkrpb

    assert (natten2dav, natten2dqkrpb) == (natten.natten2dav, natten.natten2dqkrpb)
    assert FromNatten is natten.NeighborhoodAttention2D
    natten.provide_natten()  # a second call changes nothing
    assert sys.modules['natten'].functional.na2d is natten.na2d


def test_an_installed_natten_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / 'natten.py').write_text('na2d = None')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'natten', raising=False)
    with pytest.raises(ImportError, match='NATTEN is installed, so'):
        natten.provide_natten()
    assert 'natten' not in sys.modules
