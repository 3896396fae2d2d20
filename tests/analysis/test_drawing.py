"""Tests where the figures draw their elements."""

import numpy as np
import pytest
import torch

from nat_mm.analysis.drawing import (
    COLORS,
    TOKEN_COLOR,
    color_at,
    draw_fields,
    draw_heat,
    draw_window,
)
from nat_mm.analysis.windows import AttentionWindow, Layer
from tests.ops.oracle import neighbors as oracle_neighbors


def make_window(token, shape, dilation, stride=8):
    """Makes a 3 x 3 window whose weights rise from the first neighbor to the last."""
    rows = oracle_neighbors(token[0], max(shape[0], 3 * dilation), 3, dilation)
    columns = oracle_neighbors(token[1], max(shape[1], 3 * dilation), 3, dilation)
    neighbors = torch.tensor([[row, column] for row in rows for column in columns])
    weights = torch.arange(9.0) / 36
    on_map = (neighbors < torch.tensor(shape)).all(dim=1)
    return AttentionWindow(Layer(0, 0), stride, token, neighbors, weights, on_map)


def random_image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('zoom', [1, 3], ids=lambda zoom: f'zoom{zoom}')
@pytest.mark.parametrize('dilation', [1, 2], ids=lambda dilation: f'd{dilation}')
@pytest.mark.parametrize('token', [(0, 0), (5, 9), (3, 4), (0, 5)], ids=str)
def test_the_cells_of_the_window_are_colored_and_no_others(token, dilation, zoom):
    window = make_window(token, (6, 10), dilation)
    image = random_image(48 * zoom, 80 * zoom)
    before = image.copy()
    drawn = draw_window(image, window, scale=(zoom, zoom))
    cell = 8 * zoom
    in_window = np.zeros((6, 10), bool)
    for row in oracle_neighbors(token[0], 6, 3, dilation):
        for column in oracle_neighbors(token[1], 10, 3, dilation):
            in_window[row, column] = True
    in_window = in_window.repeat(cell, axis=0).repeat(cell, axis=1)
    outside = (image * 0.55).astype(np.uint8)
    np.testing.assert_array_equal(drawn[~in_window], outside[~in_window])
    assert (drawn != outside).any(axis=-1)[in_window].mean() > 0.95
    np.testing.assert_array_equal(image, before)

    top, left = token[0] * cell, token[1] * cell
    assert (drawn[top, left : left + cell] == TOKEN_COLOR).all()
    assert (drawn[top : top + cell, left + cell - 1] == TOKEN_COLOR).all()


def test_cells_have_the_colors_of_their_weights():
    window = make_window((3, 4), (6, 10), 1)
    gray = np.full((48, 80, 3), 100, np.uint8)
    drawn = draw_window(gray, window)
    for (row, column), weight in zip(window.neighbors.tolist(), window.weights, strict=True):
        expected = 0.35 * 100 + 0.65 * np.array(color_at(COLORS, float(weight) * 36 / 8))
        np.testing.assert_allclose(drawn[row * 8 + 4, column * 8 + 4], expected, atol=1)


def test_padding_and_cells_beyond_the_image_are_cut_off():
    window = make_window((0, 0), (2, 2), 1)
    image = random_image(13, 16)
    drawn = draw_window(image, window)
    assert drawn.shape == image.shape
    assert (drawn != (image * 0.55).astype(np.uint8)).any(axis=-1).mean() > 0.95


def test_fields_have_the_color_of_the_first_layer_that_sees():
    fields = []
    for reach in (4, 12, 20):
        field = np.zeros((60, 60), bool)
        field[30 - reach : 30 + reach, 30 - reach : 30 + reach] = True
        fields.append(field)
    drawn = draw_fields(np.full((60, 60, 3), 100, np.uint8), fields)
    for number, place in enumerate((30, 22, 14)):
        expected = 50 + 0.5 * np.array(color_at('viridis_r', number / 2))
        np.testing.assert_allclose(drawn[30, place], expected, atol=1)
    assert (drawn[30, 5] == 55).all()
    assert tuple(drawn[30, 10]) == color_at('viridis_r', 1)


def test_heat_is_brightest_where_it_is_highest():
    heat = np.zeros((20, 30))
    heat[4, 7], heat[10, 20] = 2, 0.5
    drawn = draw_heat(np.zeros((20, 30, 3), np.uint8), heat)
    brightness = drawn.sum(axis=-1)
    assert brightness.argmax() == 4 * 30 + 7
    assert 0 < brightness[10, 20] < brightness[4, 7]
    assert np.count_nonzero(brightness) == 2
    assert draw_heat(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4))).max() == 0
