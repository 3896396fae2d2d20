"""Tests the window of the token under a point against the attention module itself."""

import pytest
import torch
from torch import nn

from nat_mm.analysis import attention_windows, find_backbone
from tests.analysis.conftest import make_backbone
from tests.ops.oracle import neighbors as oracle_neighbors

POINTS = [(0, 0), (131.5, 95.5), (70, 20)]


def recorded_call(backbone, image, stage, block):
    """Returns an attention module, its input after the norm, and its output."""
    layer = backbone.stages[stage].blocks[block]
    seen = {}
    layer.attn.register_forward_hook(
        lambda module, args, output: seen.update(x=layer.norm1(args[0]), output=output.clone())
    )
    with torch.no_grad():
        backbone(image)
    return layer.attn, seen['x'], seen['output']


def attend_by_windows(attention, x, windows):
    """Computes the module's output for the tokens from the windows of every head."""
    height, width = x.shape[1:3]
    outputs = []
    for of_heads in zip(*windows, strict=True):
        rows, columns = of_heads[0].neighbors.T
        inside = (rows < height) & (columns < width)
        near = torch.zeros(len(rows), x.shape[-1])
        near[inside] = x[0, rows[inside], columns[inside]]
        values = attention.qkv(near).chunk(3, dim=-1)[2].unflatten(-1, (attention.num_heads, -1))
        parts = [window.weights @ values[:, head] for head, window in enumerate(of_heads)]
        outputs.append(attention.proj(torch.cat(parts)))
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ('kind', 'stage', 'block', 'backend'),
    [
        ('NAT', 0, 0, 'auto'),
        ('NAT', 2, 1, 'portable'),
        ('DiNAT', 1, 1, 'reference'),
        ('DiNAT_s', 2, 1, 'auto'),
    ],
)
def test_windows_explain_what_the_module_returns(kind, stage, block, backend, image):
    backbone = make_backbone(kind, attention_backend=backend)
    attention, x, output = recorded_call(backbone, image, stage, block)
    windows = [
        attention_windows(backbone, image, points=POINTS, stage=stage, block=block, head=head)
        for head in range(attention.num_heads)
    ]
    rows, columns = torch.tensor([window.token for window in windows[0]]).T
    with torch.no_grad():
        torch.testing.assert_close(
            attend_by_windows(attention, x, windows), output[0, rows, columns], rtol=1e-4, atol=1e-5
        )


def test_a_map_smaller_than_the_window_attends_to_its_padding(image):
    backbone = make_backbone('NAT', kernel_size=7)
    attention, x, output = recorded_call(backbone, image, 3, 0)
    assert x.shape[1:3] == (3, 5)
    windows = [
        attention_windows(backbone, image, points=[(100, 90)], head=head) for head in range(4)
    ]
    window = windows[0][0]
    assert (window.layer, window.stride, window.token) == ((3, 0), 32, (2, 3))
    assert window.on_map.view(7, 7)[:3, :5].all()
    assert window.on_map.sum() == 15
    with torch.no_grad():
        torch.testing.assert_close(
            attend_by_windows(attention, x, windows)[0], output[0, 2, 3], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize('dilation', [1, 2], ids=lambda value: f'd{value}')
@pytest.mark.parametrize('point', [(0, 0), (131, 95), (64, 50), (3, 60)], ids=str)
def test_boxes_are_the_cells_of_the_neighbors(point, dilation, image):
    dilations = ((1, 1), (1, dilation), (1, 1), (1,))
    backbone = make_backbone('DiNAT', dilations=dilations, kernel_size=5)
    (window,) = attention_windows(backbone, image, points=[point], stage=1, block=1)
    row, column = point[1] // 8, point[0] // 8
    assert window.token == (row, column)
    assert window.box.tolist() == [column * 8, row * 8, column * 8 + 8, row * 8 + 8]
    expected = [
        [8 * x, 8 * y, 8 * x + 8, 8 * y + 8]
        for y in oracle_neighbors(row, 12, 5, dilation)
        for x in oracle_neighbors(column, 17, 5, dilation)
    ]
    assert window.boxes.tolist() == expected
    assert window.weights.sum().item() == pytest.approx(1)


def test_without_a_head_the_weights_are_the_mean(image):
    backbone = make_backbone('DiNAT')
    points = [(10, 10), (100, 60)]
    options = {'points': points, 'stage': 3, 'block': 0}
    mean = attention_windows(backbone, image, **options)
    heads = [attention_windows(backbone, image, **options, head=head) for head in range(4)]
    for index in range(len(points)):
        expected = torch.stack([windows[index].weights for windows in heads]).mean(0)
        torch.testing.assert_close(mean[index].weights, expected)
        assert not torch.allclose(heads[0][index].weights, heads[1][index].weights, atol=1e-3)


def test_the_backbone_is_left_as_it_was(image):
    backbone = make_backbone('NAT', drop_rate=0.5, frozen_stages=1).train()
    modes = [module.training for module in backbone.modules()]
    first = attention_windows(backbone, image, points=[(5, 5)], stage=1)
    second = attention_windows(backbone, image, points=[(5, 5)], stage=1)
    torch.testing.assert_close(first[0].weights, second[0].weights, rtol=0, atol=0)
    assert [module.training for module in backbone.modules()] == modes
    assert not any(module._forward_hooks for module in backbone.modules())


def test_the_backbone_is_found_in_a_model():
    backbone = make_backbone('NAT')
    assert find_backbone(nn.ModuleDict({'backbone': backbone, 'neck': nn.Identity()})) is backbone
    assert find_backbone(backbone) is backbone
    with pytest.raises(ValueError, match='must be NAT, DiNAT or DiNAT_s, the model has Linear'):
        find_backbone(nn.ModuleDict({'backbone': nn.Linear(1, 1)}))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'stage': 3}, 'stage must be from 0 to 2, got 3'),
        ({'stage': 1, 'block': 2}, 'block of stage 1 must be from 0 to 1, got 2'),
        ({'stage': 1, 'head': 2}, 'head of stage 1 must be from 0 to 1, got 2'),
        ({'head': -1}, 'head of stage 2 must be from 0 to 1, got -1'),
        ({'points': [(132, 0)]}, r'x below 132 and y below 96, got \(132, 0\)'),
        ({'points': [(0, -0.5)]}, r'x below 132 and y below 96, got \(0, -0.5\)'),
        ({'image': torch.zeros(2, 3, 96, 132)}, r'image must have shape \[1, C, H, W\]'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_mistakes_are_named(changes, message, image):
    backbone = make_backbone('NAT', out_indices=(0, 2))
    arguments = {'image': image, 'points': [(0, 0)]} | changes
    with pytest.raises(ValueError, match=message):
        attention_windows(backbone, **arguments)
