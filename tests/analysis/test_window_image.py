"""Tests docs/window.py, which draws the windows shown in the documentation."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.ops.oracle import neighbors as oracle_neighbors

SCRIPT = Path(__file__).parents[2] / 'docs/window.py'


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('docs_window', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_windows_are_those_of_the_operator(script):
    for token in script.TOKENS.values():
        for dilation in script.DILATIONS:
            expected = [
                (row, column)
                for row in oracle_neighbors(token[0], script.HEIGHT, 7, dilation)
                for column in oracle_neighbors(token[1], script.WIDTH, 7, dilation)
            ]
            assert script.neighbors(token, dilation) == expected
            assert token in expected


def test_as_many_cells_are_drawn_as_tokens_are_attended_to(script, tmp_path):
    script.main(tmp_path / 'window.png')
    image = cv2.imread(str(tmp_path / 'window.png'))
    blue_green_red = [int(script.NEIGHBOR[start : start + 2], 16) for start in (5, 3, 1)]
    cells, _ = cv2.connectedComponents((image == blue_green_red).all(-1).astype(np.uint8))
    # Each of six maps has 48 cells, some cut in two by a dashed line, and the legend has one.
    assert 6 * 48 + 1 <= cells - 1 < 6 * 48 * 1.5
