"""Tests that class names are drawn unchanged in any language that an installed font covers."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.visualization import Visualizer

from nat_mm import fonts
from tests.fonts import write_font


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The fonts of the computer, at first none."""
    paths = []
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [str(path) for path in paths])
    yield paths
    forget()


def forget():
    for function in (fonts.find_font, fonts.writable, fonts._installed_fonts):
        function.cache_clear()


@pytest.fixture
def squares(installed, tmp_path):
    """A font with the characters 猫 and a."""
    forget()
    installed.append(write_font(tmp_path / 'squares.ttf', '猫a'))
    return installed[0]


def test_usual_characters_have_the_usual_font(squares):
    assert fonts.find_font('Straße $x_1$ 0.30…') == fonts.USUAL_FONT
    assert fonts.writable('Straße $x_1$ 0.30…') == 'Straße $x_1$ 0.30…'


def test_font_that_has_the_characters(squares):
    assert fonts.find_font('猫a') == squares
    assert fonts.writable('猫a') == '猫a'


def test_plain_style_goes_first(squares, installed, tmp_path):
    installed.insert(0, write_font(tmp_path / 'aBold.ttf', '猫a'))
    assert fonts.find_font('猫') == squares


def test_unreadable_font_is_left_out(squares, installed, tmp_path):
    (tmp_path / 'a.ttf').write_bytes(b'no font')
    installed.insert(0, tmp_path / 'a.ttf')
    assert fonts.find_font('猫') == squares


def test_codes_and_a_warning_where_no_font_has_the_characters():
    forget()
    with pytest.warns(UserWarning, match=r"no installed font has '\\u732b' of '\\u732b cat'"):
        assert fonts.writable('猫 cat') == r'\u732b cat'


@pytest.mark.parametrize('name', ['a\nb', 'a\tb'])
def test_white_space_is_a_blank(name, recwarn):
    assert fonts.writable(name) == 'a b'
    assert not recwarn


def test_emoji_and_escape():
    forget()
    with pytest.warns(UserWarning, match='no installed font has'):
        assert fonts.writable('🦤\x1b') == r'\U0001f9a4\x1b'


def rendered(draw):
    figure = Figure(figsize=(2, 1))
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # matplotlib warns about characters that a font lacks
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0]


@pytest.mark.parametrize('text', ['$cost_{$', 'a$b', '$x$', '$$', '猫'])
def test_matplotlib_writes_it_plainly(text, squares):
    drawn = rendered(lambda figure: fonts.write_plainly(figure.text(0.5, 0.5, text)))
    assert (drawn < 100).sum() > 20


def test_formula_is_not_set(squares):
    plain = rendered(lambda figure: fonts.write_plainly(figure.text(0.2, 0.5, '$x$')))
    formula = rendered(lambda figure: figure.text(0.2, 0.5, '$x$'))
    assert (plain < 100).sum() > 1.5 * (formula < 100).sum()


def test_mmengines_visualizer(squares):
    visualizer = Visualizer()
    visualizer.set_image(np.zeros((60, 200, 3), np.uint8))
    visualizer.draw_texts(['$a_{$', '猫'], np.array([[5, 5], [5, 30]]), colors='w')
    drawn = visualizer.get_image()
    assert (drawn[:30] > 100).any()
    assert (drawn[30:] > 100).sum() > 3 * 50
