"""Tests the measurements of attention patterns."""

import time

import pytest
import torch
from torch import nn

from nat_mm.analysis.equivariance import measure_equivariance
from nat_mm.analysis.pattern_comparison import (
    build_patterns,
    compare_patterns,
    draw_weights,
    measure_field_sides,
)
from nat_mm.analysis.pattern_costs import make_work, measure_peak_memory, measure_seconds
from nat_mm.layers import ATTENTION_PATTERNS
from tests.analysis.conftest import make_backbone

CONFIG = {
    'type': 'NAT',
    'embed_dim': 16,
    'depths': (2, 2),
    'num_heads': (1, 2),
    'kernel_size': 3,
    'out_indices': (0, 1),
}
MEBIBYTE = 2**20


@pytest.fixture
def backbones():
    """A small backbone for each pattern, all with the same random weights."""
    options = {key: value for key, value in CONFIG.items() if key != 'type'}
    backbone = make_backbone('NAT', **options)
    draw_weights(backbone)
    return build_patterns(backbone, CONFIG, ATTENTION_PATTERNS)


def test_patterns_get_the_weights_of_the_first(backbones):
    states = [backbone.state_dict() for backbone in backbones.values()]
    assert list(backbones) == list(ATTENTION_PATTERNS)
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=0, atol=0)
    attention = backbones['neighborhood'].levels[1].blocks[0].attn
    assert float(attention.qkv.weight.detach().std()) == pytest.approx(32**-0.5, rel=0.1)
    assert float(attention.rpb.detach().std()) == pytest.approx(1, rel=0.3)


def test_sliding_windows_move_with_the_image_and_others_do_not(backbones):
    image = torch.randn(1, 3, 232, 200)
    found = {name: measure_equivariance(each, image) for name, each in backbones.items()}
    for each in found.values():
        assert [(one.stage, one.stride) for one in each] == [(0, 4), (1, 8)]
        # Tokens of 224 x 192 crops, without the row and the column that only one crop has.
        assert [tuple(one.change.shape) for one in each] == [(55, 47), (27, 23)]
    for pattern in ('neighborhood', 'sasa'):
        # In the middle, the windows of two 3 x 3 layers touch no border.
        assert all(one.error < 1e-5 for one in found[pattern])
        assert all(one.change[0].mean() > 0.01 for one in found[pattern])
    assert all(one.error > 0.1 for one in found['shifted_window'])
    assert all(1e-4 < one.error < 0.1 for one in found['full'])


def test_change_is_the_difference_of_features_of_the_same_pixels(backbones):
    backbone = backbones['shifted_window']
    image = torch.randn(1, 3, 104, 80)
    found = measure_equivariance(backbone, image)[1]
    with torch.no_grad():
        still = backbone(image[..., 8:, 8:])[1][0]
        moved = backbone(image[..., :96, :72])[1][0]
    # Row r of `still` starts at pixel 8 + 8 r of the image, row r of `moved` at 8 r.
    difference = (moved[:, 1 + 3, 1 + 5] - still[:, 3, 5]).norm()
    expected = difference / still[:, :-1, :-1].norm(dim=0).mean()
    torch.testing.assert_close(found.change[3, 5], expected)


def test_patterns_of_images_with_four_channels():
    config = {**CONFIG, 'in_channels': 4}
    options = {key: value for key, value in config.items() if key != 'type'}
    backbones = build_patterns(make_backbone('NAT', **options), config, ['neighborhood', 'full'])
    image = torch.randn(1, 4, 72, 104)
    rows = compare_patterns(backbones, image, shape=(64, 96), seconds=0.01)
    assert [row.pattern for row in rows] == ['neighborhood', 'full']
    assert rows[0].parameters == rows[1].parameters
    assert 0 < rows[0].multiply_adds < rows[1].multiply_adds


def test_too_small_an_image_is_refused_and_training_mode_stays(backbones):
    backbone = backbones['neighborhood'].train()
    with pytest.raises(ValueError, match='must have 24 pixels or more on each side, got 40 x 23'):
        measure_equivariance(backbone, torch.randn(1, 3, 40, 23))
    measure_equivariance(backbone, torch.randn(1, 3, 64, 64))
    assert backbone.training


def test_receptive_fields_grow(backbones):
    sides = {name: measure_field_sides(each, (160, 160)) for name, each in backbones.items()}
    # The tokenizer's two 3 x 3 convolutions of stride 2 span 7 pixels, plus 4 per further token.
    assert sides['neighborhood'] == sides['sasa'] == [15, 23, 47, 63]
    assert sides['full'] == [160] * 4
    assert sides['shifted_window'][0] == 15


def test_peak_memory_is_that_of_the_tensors_that_live_at_a_time():
    def work():
        first = torch.zeros(MEBIBYTE)
        second = first + 1
        del first
        third = second * 2  # 8 MiB together with the second, as much as the first two
        del second
        return torch.cat([third] * 2)  # 12 MiB together with the third

    assert measure_peak_memory(work, torch.device('cpu')) / MEBIBYTE == pytest.approx(12, abs=0.1)


def test_memory_that_stays_from_call_to_call_is_not_counted(capfd):
    layer = nn.Linear(512, 512)

    def work():
        layer.zero_grad(set_to_none=False)
        layer(torch.ones(1, 512)).sum().backward()

    peak = measure_peak_memory(work, torch.device('cpu'))
    assert 1 * MEBIBYTE <= peak < 1.2 * MEBIBYTE  # the new gradient, which is added to the old one
    assert capfd.readouterr().err == ''


def test_seconds_are_those_of_a_call():
    works = {'short': lambda: time.sleep(0.001), 'long': lambda: time.sleep(0.02)}
    seconds = measure_seconds(works, rounds=1, seconds=0.02)
    assert list(seconds) == ['short', 'long']
    assert seconds['short'] >= 0.001
    assert seconds['long'] >= 0.02


@pytest.mark.parametrize('mode', ['inference', 'training'])
def test_work(mode, backbones):
    backbone = backbones['sasa']
    make_work(backbone, torch.randn(1, 3, 64, 64), mode)()
    assert backbone.training == (mode == 'training')
    weight = backbone.levels[0].blocks[0].attn.qkv.weight
    assert (weight.grad is not None) == (mode == 'training')
