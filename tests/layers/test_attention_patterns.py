"""Tests the attention patterns that neighborhood attention is compared with."""

import pytest
import torch
from torch.nn.functional import linear, unfold

from nat_mm.layers import (
    ATTENTION_PATTERNS,
    NATLayer,
    NeighborhoodAttention2D,
    ShiftedWindowAttention2D,
    StandAloneAttention2D,
)

PARAMETERS = {
    'rpb': (2, 5, 5),
    'qkv.weight': (24, 8),
    'qkv.bias': (24,),
    'proj.weight': (8, 8),
    'proj.bias': (8,),
}


def randomize(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.double()


def random_map(*size):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, *size, 8, dtype=torch.float64, generator=generator, requires_grad=True)


def outputs_and_gradients(forward, x, module):
    output = forward(x)
    gradients = torch.autograd.grad(output.sin().sum(), [x, *module.parameters()])
    return output, *gradients


@pytest.mark.parametrize('pattern', ATTENTION_PATTERNS)
def test_patterns_exchange_weights(pattern):
    attention = NATLayer(8, 2, kernel_size=3, attention=pattern).attn
    assert {name: tuple(each.shape) for name, each in attention.named_parameters()} == PARAMETERS
    other = NATLayer(8, 2, kernel_size=5, attention='neighborhood').attn
    attention.load_state_dict(other.state_dict())
    assert attention.rpb.shape == (2, 5, 5)


@pytest.mark.parametrize('pattern', ['shifted_window', 'full'])
def test_patterns_agree_on_a_map_of_one_window(pattern):
    shifted = pattern == 'shifted_window'
    layer = NATLayer(8, 2, kernel_size=5, attention=pattern, shifted=shifted)
    neighborhood = randomize(NATLayer(8, 2, kernel_size=5))
    layer.double().load_state_dict(neighborhood.state_dict())
    x = random_map(5, 5)
    torch.testing.assert_close(layer(x), neighborhood(x))


def unfolded_attention(module, x):
    """Computes stand-alone attention with the padding and windows of a convolution."""
    batch, height, width, channels = x.shape
    size, dilation, heads = module.kernel_size, module.dilation, module.num_heads
    margin = dilation * (size // 2)
    query, key, value = module.qkv(x).split(channels, dim=-1)
    key, value = (
        unfold(part.movedim(-1, 1), size, dilation=dilation, padding=margin).view(
            batch, heads, channels // heads, size**2, height * width
        )
        for part in (key, value)
    )
    query = query.movedim(-1, 1).reshape(batch, heads, channels // heads, height * width)
    bias = module.rpb[:, size // 2 : -(size // 2), size // 2 : -(size // 2)]
    scores = torch.einsum('bhdn,bhdkn->bhkn', query, key) * (channels // heads) ** -0.5
    weights = (scores + bias.reshape(heads, -1, 1)).softmax(dim=2)
    mixed = torch.einsum('bhkn,bhdkn->bhdn', weights, value)
    return module.proj(mixed.reshape(batch, channels, height, width).movedim(1, -1))


@pytest.mark.parametrize('backend', ['reference', 'portable', 'auto'])
@pytest.mark.parametrize(
    ('size', 'kernel_size', 'dilation'),
    [((6, 9), 3, 1), ((5, 5), 5, 1), ((1, 4), 5, 1), ((7, 9), 3, 3), ((1, 2), 3, 4)],
    ids=['3x3', 'map as large', 'map smaller', 'dilated', 'dilated, map smaller'],
)
def test_stand_alone_attention_is_attention_over_a_padded_convolutions_windows(
    size, kernel_size, dilation, backend
):
    module = randomize(
        StandAloneAttention2D(8, 2, kernel_size=kernel_size, dilation=dilation, backend=backend)
    )
    x = random_map(*size)
    torch.testing.assert_close(
        outputs_and_gradients(module, x, module),
        outputs_and_gradients(lambda x: unfolded_attention(module, x), x, module),
        rtol=1e-6,
        atol=1e-6,
    )


def test_stand_alone_attention_is_neighborhood_attention_inside_a_map():
    stand_alone = randomize(StandAloneAttention2D(8, 2, kernel_size=3))
    neighborhood = randomize(NeighborhoodAttention2D(8, 2, kernel_size=3))
    x = random_map(6, 7)
    difference = (stand_alone(x) - neighborhood(x)).abs().amax(dim=(0, 3))
    assert difference[1:-1, 1:-1].max() < 1e-12
    assert min(difference[0].min(), difference[:, -1].min()) > 1e-3


def swin_attention(module, x):
    """Runs torchvision's attention, which needs the table flipped and expanded to token pairs."""
    from torchvision.models.swin_transformer import shifted_window_attention

    size = module.window_size
    position = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    row, column = (position[:, None] - position).unbind(-1)
    bias = module.rpb.flip(1, 2)[:, row + size - 1, column + size - 1]
    return shifted_window_attention(
        x,
        module.qkv.weight,
        module.proj.weight,
        bias[None],
        [size, size],
        module.num_heads,
        [module.shift, module.shift],
        qkv_bias=module.qkv.bias,
        proj_bias=module.proj.bias,
    )


@pytest.mark.parametrize('shift', [0, 1, 2])
@pytest.mark.parametrize('size', [(8, 12), (7, 9), (3, 9), (4, 4)], ids=str)
def test_window_attention_is_torchvisions(size, shift):
    module = randomize(ShiftedWindowAttention2D(8, 2, window_size=4, shift=shift))
    x = random_map(*size)
    torch.testing.assert_close(
        outputs_and_gradients(module, x, module),
        outputs_and_gradients(lambda x: swin_attention(module, x), x, module),
        rtol=1e-6,
        atol=1e-6,
    )


def test_window_attention_without_biases():
    module = ShiftedWindowAttention2D(
        8, 2, window_size=3, shift=1, qkv_bias=False, relative_position_bias=False
    )
    assert sorted(dict(module.named_parameters())) == ['proj.bias', 'proj.weight', 'qkv.weight']
    biased = ShiftedWindowAttention2D(8, 2, window_size=3, shift=1)
    biased.load_state_dict(module.state_dict(), strict=False)
    torch.nn.init.zeros_(biased.rpb)
    torch.nn.init.zeros_(biased.qkv.bias)
    x = torch.randn(1, 5, 6, 8)
    torch.testing.assert_close(module(x), biased(x))


def test_window_of_one_row_is_linear():
    module = ShiftedWindowAttention2D(8, 2, window_size=1)
    x = torch.randn(1, 2, 3, 8)
    value = linear(x, module.qkv.weight[16:], module.qkv.bias[16:])
    torch.testing.assert_close(module(x), module.proj(value))


@pytest.mark.parametrize('pattern', ATTENTION_PATTERNS)
def test_low_precision_and_empty_batch(pattern):
    layer = NATLayer(8, 2, kernel_size=3, attention=pattern)
    with torch.autocast('cpu', torch.bfloat16):
        assert layer.attn(torch.randn(1, 4, 5, 8)).dtype == torch.bfloat16
    assert layer(torch.zeros(0, 4, 5, 8)).shape == (0, 4, 5, 8)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'attention': 'swin'}, "one of neighborhood, sasa, shifted_window, full, got 'swin'"),
        ({'attention': 'full', 'dilation': 2}, "'full' has no dilation: give dilations of 1.*2"),
        ({'attention': 'shifted_window', 'dilation': 3}, "'shifted_window' has no dilation"),
        ({'attention': 'full', 'attention_backend': 'cpu'}, "leave .* at 'auto', got 'cpu'"),
        ({'attention': 'full', 'kernel_size': 0}, 'map_size must be'),
        ({'attention': 'shifted_window', 'kernel_size': 4}, 'kernel_size must be odd'),
        ({'attention': 'sasa', 'kernel_size': 4}, 'kernel_size must be odd'),
        ({'attention': 'sasa', 'shifted': True}, "can be shifted, not 'sasa'"),
    ],
    ids=str,
)
def test_wrong_layer(options, message):
    with pytest.raises(ValueError, match=message):
        NATLayer(8, 2, **options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'attention': 'full', 'qkv_bias': 1}, 'qkv_bias must be True or False, got 1'),
        ({'attention': 'shifted_window', 'qkv_bias': 1}, 'qkv_bias must be True or False'),
        ({'relative_position_bias': 'no'}, "relative_position_bias must be True .*, got 'no'"),
        ({'shifted': 1}, 'shifted must be True or False, got 1'),
    ],
    ids=str,
)
def test_flags_are_bools(options, message):
    with pytest.raises(TypeError, match=message):
        NATLayer(8, 2, **options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'window_size': 0}, 'window_size must be at least 1'),
        ({'window_size': 4, 'shift': 4}, r'shift must be below window_size \(4\), got 4'),
        ({'num_heads': 3}, 'num_heads must divide channels'),
    ],
    ids=str,
)
def test_wrong_window(options, message):
    with pytest.raises(ValueError, match=message):
        ShiftedWindowAttention2D(**{'channels': 8, 'num_heads': 2, **options})
