"""Tests that label images are converted to PNGs of class numbers."""

import numpy as np
import pytest
from PIL import Image

from nat_mm.commands.convert_labels import main
from nat_mm.errors import UserError


@pytest.fixture
def convert(tmp_path, capsys):
    """Converts one label image and returns its mode, its values and the output."""

    def convert(image, *mapping):
        (tmp_path / 'labels/day').mkdir(parents=True)
        image.save(tmp_path / 'labels/day/0.png')
        arguments = [str(tmp_path / 'labels'), str(tmp_path / 'out')]
        main([*arguments, '--map', *mapping] if mapping else arguments)
        with Image.open(tmp_path / 'out/day/0.png') as result:
            return result.mode, np.asarray(result).tolist(), capsys.readouterr().out

    return convert


def palette_image():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


COLORS = np.array([[[0, 0, 0], [128, 0, 0]], [[0, 128, 0], [0, 0, 0]]], np.uint8)
COLOR_MAP = ('0,0,0=0', '128,0,0=1', '0,128,0=255')


@pytest.mark.parametrize(
    ('image', 'mapping', 'expected'),
    [
        (np.array([[0, 255]], np.uint8), ['255=1'], [[0, 1]]),
        (np.array([[0, 1]], np.uint8), ['0=1', '1=0'], [[1, 0]]),
        (np.array([[0, 1000]], np.uint16), ['1000=3'], [[0, 3]]),
        (np.array([[False, True]]), [], [[0, 1]]),
        (COLORS, COLOR_MAP, [[0, 1], [255, 0]]),
        (np.concatenate([COLORS, COLORS[..., :1]], axis=2), COLOR_MAP, [[0, 1], [255, 0]]),
        (np.full((1, 2, 3), 4, np.uint8), ['4=5'], [[5, 5]]),
        (np.full((1, 2, 2), 4, np.uint8), [], [[4, 4]]),
    ],
    ids=['mask', 'swapped', '16 bits', '1 bit', 'colors', 'RGBA', 'equal channels', 'gray alpha'],
)
def test_conversion(image, mapping, expected, convert):
    mode, values, _ = convert(Image.fromarray(image), *mapping)
    assert mode == 'L'
    assert values == expected


def test_palette_image(convert):
    assert convert(palette_image())[:2] == ('L', [[0, 1], [2, 1]])


def test_option_given_twice(convert):
    assert convert(palette_image(), '1=7', '--map', '2=8')[1] == [[0, 7], [8, 7]]


def test_what_is_printed(convert):
    _, _, printed = convert(palette_image(), '2=255')
    assert [line.split() for line in printed.splitlines()[1:]] == [
        ['0', '1'],
        ['1', '2'],
        ['255', '1'],
    ]


@pytest.mark.parametrize(
    ('image', 'mapping', 'expected'),
    [
        (COLORS, [], '0.png has colors: give each the number of its class'),
        (COLORS, ['0,0,0=0', '128,0,0=1'], 'has the color 0,128,0 at row 1, column 0, which --map'),
        (COLORS, ['0,0,0=0'], "255 to ignore it. The same holds for '0,128,0'"),
        (
            np.array([[1000, 400, 9]], np.uint16),
            ['1000=1'],
            'has the value 400, but labels have 0 to 255: add --map 400=CLASS',
        ),
        (
            np.array([[1000, 400, 9]], np.uint16),
            [],
            'has the values 400, 1000, but labels have 0 to 255: add --map 400=CLASS 1000=CLASS',
        ),
        (COLORS, ['red=1'], '--map takes entries such as 255=1, or 128,0,0=3 for a color'),
        (COLORS, ['255=256'], "with colors and new values from 0 to 255, got '255=256'"),
        (COLORS, ['1,2=3', '1=1', 'x', '0,300,0=1'], "got '1,2=3', 'x', '0,300,0=1'"),
        (
            COLORS,
            ['7=1', '7=1', '0,0,0=1', '7=2', '0,0,0=2', '7=3'],
            "several new values for the same value or color: '7=1 7=2 7=3', '0,0,0=1 0,0,0=2'; ",
        ),
    ],
    ids=[
        *('colors', 'another color', 'other colors', '16 bits', '16 bits, several', 'name'),
        *('new value', 'several', 'twice'),
    ],
)
def test_mistakes(image, mapping, expected, convert):
    with pytest.raises(UserError) as raised:
        convert(Image.fromarray(image), *mapping)
    assert expected in str(raised.value)


def test_jpeg(tmp_path):
    (tmp_path / 'labels').mkdir()
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / 'labels/0.jpg')
    with pytest.raises(UserError, match=r'0\.jpg is a JPEG, .* save the labels as PNGs'):
        main([str(tmp_path / 'labels'), str(tmp_path / 'out'), '--map', '255=1'])
    assert not (tmp_path / 'out').exists()


def test_folders(tmp_path):
    with pytest.raises(UserError, match='labels has no label images'):
        main([str(tmp_path / 'labels'), str(tmp_path / 'out')])
    (tmp_path / 'labels').mkdir()
    palette_image().save(tmp_path / 'labels/0.png')
    with pytest.raises(UserError, match=r'labels would overwrite an input'):
        main([str(tmp_path / 'labels'), str(tmp_path / 'labels')])
    (tmp_path / 'labels/1.png').write_text('no image')
    with pytest.raises(UserError, match=r'1\.png cannot be read'):
        main([str(tmp_path / 'labels'), str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_results_in_a_folder_of_labels(tmp_path):
    (tmp_path / 'labels/train').mkdir(parents=True)
    for name in ('0.png', 'train/0.png'):
        palette_image().save(tmp_path / 'labels' / name)
    before = (tmp_path / 'labels/train/0.png').read_bytes()
    with pytest.raises(UserError, match='labels/train would overwrite an input'):
        main([str(tmp_path / 'labels'), str(tmp_path / 'labels/train'), '--map', '1=2'])
    assert (tmp_path / 'labels/train/0.png').read_bytes() == before
    main([str(tmp_path / 'labels'), str(tmp_path / 'labels/new'), '--map', '1=2'])
    assert (tmp_path / 'labels/new/train/0.png').exists()
