"""Tests converting labelme to COCO and to label images."""

import base64

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nat_mm.errors import UserError
from tests.data.formats.writing import (
    HEIGHT,
    WIDTH,
    objects,
    polygon,
    write_image,
    write_labelme,
    write_text,
)

SQUARE = ((10, 5), (30, 5), (30, 25), (10, 25))


def write_pair(source, *shapes, **content):
    """Writes the same shapes for two images, so that both splits contain them."""
    for name in 'ab':
        write_labelme(source / f'{name}.json', *shapes, **content)


def test_polygons_are_kept(source, convert):
    write_pair(source, polygon('nut', *SQUARE), polygon('fig', (0, 0), (5.5, 0), (0, 8.25)))
    for coco in convert('labelme').values():
        assert [category['name'] for category in coco.cats.values()] == ['fig', 'nut']
        (nut,), (fig,) = objects(coco)['nut'], objects(coco)['fig']
        assert nut['segmentation'] == [[10, 5, 30, 5, 30, 25, 10, 25]]
        assert (nut['bbox'], nut['area']) == ([10, 5, 20, 20], 400)
        assert fig['segmentation'] == [[0, 0, 5.5, 0, 0, 8.25]]


def test_other_shapes(source, convert, capsys):
    pixels = np.zeros((6, 4), np.uint8)
    pixels[:, 1:] = 255
    png = base64.b64encode(cv2.imencode('.png', pixels)[1].tobytes()).decode()
    write_pair(
        source,
        dict(label='box', points=[(30, 25), (10, 5)], shape_type='rectangle'),
        dict(label='disc', points=[(30, 20), (30, 30)], shape_type='circle'),
        dict(label='mask', points=[(7, 9), (10, 14)], shape_type='mask', mask=png),
        dict(label='dot', points=[(7, 9)], shape_type='point'),
    )
    for coco in convert('labelme').values():
        found = objects(coco)
        assert found.keys() == {'box', 'disc', 'mask'}
        assert found['box'][0]['bbox'] == [10, 5, 20, 20]
        assert found['disc'][0]['bbox'] == pytest.approx([20, 10, 20, 20])
        assert found['disc'][0]['area'] == pytest.approx(np.pi * 100, rel=0.02)
        mask = coco.annToMask(found['mask'][0])
        assert (mask.sum(), mask[9:15, 8:11].sum()) == (18, 18)
    assert 'left out: 2 shapes of type point' in capsys.readouterr().out


def test_shapes_of_one_group_are_one_object(source, convert):
    far = ((40, 30), (50, 30), (50, 38))
    write_pair(
        source,
        polygon('nut', *SQUARE, group_id=1),
        polygon('nut', *far, group_id=1),
        polygon('nut', *far),
    )
    for coco in convert('labelme').values():
        joined, alone = objects(coco)['nut']
        assert [len(each['segmentation']) for each in (joined, alone)] == [2, 1]
        assert joined['bbox'] == [10, 5, 40, 33]


def test_label_images(source, convert, tmp_path, capsys):
    cover = ((20, 5), (30, 5), (30, 25), (20, 25))
    ignored = ((0, 0), (5, 0), (5, 5), (0, 5))
    write_pair(
        source,
        polygon('nut', *SQUARE),
        polygon('fig', *cover),
        polygon('__ignore__', *ignored),
    )
    splits = convert('labelme', '--label-images')
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for points, value in ((SQUARE, 2), (cover, 1), (ignored, 255)):
        flat = [float(value) for point in points for value in point]
        (run_lengths,) = coco_mask.frPyObjects([flat], HEIGHT, WIDTH)
        expected[coco_mask.decode(run_lengths).astype(bool)] = value
    for split, coco in splits.items():
        (image,) = coco.imgs.values()
        file = tmp_path / f'out/labels/{split}/{image["file_name"][:-4]}.png'
        assert (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) == expected).all()
    assert "dataset_classes = ('background', 'fig', 'nut')" in capsys.readouterr().out


def test_classes_are_those_of_labels_txt(source, convert):
    write_text(source / 'labels.txt', '__ignore__\n_background_\nnut\nfig\nkiwi\n')
    write_pair(source, polygon('nut', *SQUARE), polygon('fig', *SQUARE))
    for coco in convert('labelme').values():
        assert [category['name'] for category in coco.cats.values()] == ['nut', 'fig', 'kiwi']
    write_pair(source, polygon('nnut', *SQUARE))
    with pytest.raises(UserError, match=r"labels\.txt does not list the label 'nnut'"):
        convert('labelme')


def test_image_in_another_folder(source, convert):
    for name in 'ab':
        write_image(source / f'images/{name}.png')
        path = f'..\\images\\{name}.png'
        write_labelme(source / f'json/{name}.json', polygon('nut', *SQUARE), imagePath=path)
    assert sum(len(coco.imgs) for coco in convert('labelme').values()) == 2


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        (polygon('nut', (1, 1), (90, 1), (1, 9)), r'a\.json, shape 1 \(nut\): x = 90 is outside'),
        (polygon('nut', (1, 1), (9, 1)), r'shape 1 \(nut\): a polygon of 2 points has no area'),
        (polygon('nut', (1, 1), (9, 1), (5, 1)), r'shape 1 \(nut\): the object is 8 x 0 pixels'),
        ({'label': 'nut', 'points': [[1], 2]}, r'shape 1 \(nut\): points must be pairs of numbers'),
        (polygon('nut', (1, float('nan'))), r'shape 1 \(nut\): points must be pairs of numbers'),
        ({'label': 7}, r'a\.json, shape 1 must be an object with a label'),
        (polygon('nut', *SQUARE, shape_type='cube'), r"shape_type 'cube' with 4 points is unknown"),
        (polygon('nut', *SQUARE, shape_type='mask'), r'shape 1 \(nut\): mask must be a PNG'),
    ],
    ids=[
        'outside',
        'two points',
        'flat',
        'no pairs',
        'not finite',
        'no label',
        'unknown type',
        'no mask',
    ],
)
def test_mistake_is_named(source, convert, tmp_path, shape, message):
    write_labelme(source / 'b.json', polygon('nut', *SQUARE))
    write_labelme(source / 'a.json', shape)
    with pytest.raises(UserError, match=message):
        convert('labelme')
    assert not (tmp_path / 'out').exists()


def test_mistake_of_the_file_is_named(source, convert):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE), imageWidth=80)
    with pytest.raises(
        UserError, match=r'a\.json is for an image of 80 x 40 pixels, but .*60 x 40'
    ):
        convert('labelme')
    write_text(source / 'a.json', '{"images": []}')
    with pytest.raises(UserError, match=r'a\.json is not from labelme: it has no list of shapes'):
        convert('labelme')
    write_text(source / 'a.json', '{"shapes": [')
    with pytest.raises(UserError, match=r'a\.json is not JSON'):
        convert('labelme')
    write_labelme(source / 'a.json', polygon('nut', *SQUARE), imagePath='x.jpg')
    (source / 'a.jpg').unlink()
    with pytest.raises(UserError, match=r"a\.json: its image 'x\.jpg' is not in"):
        convert('labelme')
