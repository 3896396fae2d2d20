"""Tests converting Pascal VOC to COCO."""

import numpy as np
import pytest
from PIL import Image

from nat_mm.errors import UserError
from tests.data.formats.writing import HEIGHT, WIDTH, objects, write_image, write_text

BOX = (11, 6, 30, 25)


def write_voc(source, name, *found, size=(WIDTH, HEIGHT), folder='Annotations', filename=None):
    """Writes an image and its XML file; an object is a name, its corners and additional XML."""
    write_image(source / ('JPEGImages' if folder == 'Annotations' else folder) / f'{name}.jpg')
    elements = ''.join(
        f'<object><name>{label}</name>{more}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>'
        f'<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>'
        for label, box, more in found
    )
    write_text(
        source / folder / f'{name}.xml',
        f'<annotation><filename>{filename or f"{name}.jpg"}</filename><size><width>{size[0]}'
        f'</width><height>{size[1]}</height></size>{elements}</annotation>',
    )


def test_boxes_count_pixels_from_one(source, convert):
    write_voc(source, 'a', ('nut', BOX, ''), ('fig', (1, 1, WIDTH, HEIGHT), ''))
    write_voc(source, 'b', ('nut', BOX, ''))
    splits = convert('voc', '--val-fraction', '0.5')
    for coco in splits.values():
        assert [category['name'] for category in coco.cats.values()] == ['fig', 'nut']
        (nut,) = objects(coco)['nut']
        assert nut['bbox'] == [10, 5, 20, 20]
        assert nut['area'] == 400
        assert 'segmentation' not in nut
    (fig,) = [each for coco in splits.values() for each in objects(coco).get('fig', [])]
    assert fig['bbox'] == [0, 0, WIDTH, HEIGHT]


def test_difficult_objects_are_ignored(source, convert):
    for name in 'ab':
        write_voc(source, name, ('nut', BOX, '<difficult>1</difficult>'), ('nut', BOX, ''))
    for coco in convert('voc').values():
        assert [each['iscrowd'] for each in objects(coco)['nut']] == [1, 0]


def test_lists_of_train_and_val_are_kept(source, convert, capsys):
    for name in 'abcd':
        write_voc(source, name, ('nut', BOX, ''))
    write_text(source / 'ImageSets/Main/train.txt', 'a\nc\n')
    write_text(source / 'ImageSets/Main/val.txt', 'd\n')
    splits = convert('voc')
    assert [image['file_name'] for image in splits['train'].imgs.values()] == ['a.jpg', 'c.jpg']
    assert [image['file_name'] for image in splits['val'].imgs.values()] == ['d.jpg']
    assert 'left out: 1 images in neither' in capsys.readouterr().out


def test_xml_beside_images_whose_name_it_does_not_know(source, convert):
    for name in 'ab':
        write_voc(source, name, ('nut', BOX, ''), folder='mine', filename='C:\\other\\x.png')
    assert sum(len(coco.anns) for coco in convert('voc').values()) == 2


def test_folders_of_train_and_val_are_kept(source, convert, capsys):
    for folder in ('train', 'valid', 'test'):
        write_voc(source, folder[0], ('nut', BOX, ''), folder=folder)
    splits = convert('voc')
    assert [image['file_name'] for image in splits['train'].imgs.values()] == ['t.jpg']
    assert [image['file_name'] for image in splits['val'].imgs.values()] == ['v.jpg']
    assert 'left out: 1 images of the test split' in capsys.readouterr().out


def test_masks_of_objects(source, convert):
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    numbers[5:25, 10:20], numbers[5:25, 20:30], numbers[0] = 1, 2, 255
    for name in 'ab':
        write_voc(source, name, ('nut', (11, 6, 20, 25), ''), ('fig', (21, 6, 30, 25), ''))
        (source / 'SegmentationObject').mkdir(exist_ok=True)
        Image.fromarray(numbers).convert('P').save(source / f'SegmentationObject/{name}.png')
    for coco in convert('voc').values():
        for label, number in {'nut': 1, 'fig': 2}.items():
            (each,) = objects(coco)[label]
            assert (coco.annToMask(each) == (numbers == number)).all()


@pytest.mark.parametrize(
    ('written', 'message'),
    [
        (dict(found=[('nut', (5, 5, WIDTH + 9, 20), '')]), r'a\.xml, object 1 \(nut\): x = 69 is'),
        (dict(found=[('nut', (5, 5, 'nan', 20), '')]), r'a\.xml, object 1 \(nut\): x = nan is'),
        (
            dict(found=[('nut', (30, 5, 20, 20), '')]),
            r'object 1 \(nut\): xmin, ymin.*30, 5, 20, 20',
        ),
        (dict(found=[('nut', (5, 5, '', 20), '')]), r"object 1 \(nut\): bndbox/xmax .* got ''"),
        (dict(found=[('', BOX, '')]), r'a\.xml, object 1 has no name'),
        (dict(found=[], size=(80, 40)), r'a\.xml is for an image of 80 x 40 pixels, but .*60 x 40'),
    ],
    ids=['outside', 'not finite', 'corners swapped', 'no number', 'no name', 'other size'],
)
def test_mistake_is_named(source, convert, tmp_path, written, message):
    write_voc(source, 'b', ('nut', BOX, ''))
    write_voc(source, 'a', *written.pop('found'), **written)
    with pytest.raises(UserError, match=message):
        convert('voc')
    assert not (tmp_path / 'out').exists()


def test_missing_image_broken_xml_and_unknown_name_are_named(source, convert):
    write_voc(source, 'a', ('nut', BOX, ''))
    image = source / 'JPEGImages/a.jpg'
    image.rename(source / 'c.jpg')
    with pytest.raises(UserError, match=r"a\.xml: its image 'a\.jpg' is not in .*JPEGImages"):
        convert('voc')
    image.write_text('no image')
    with pytest.raises(UserError, match=r'a\.jpg is not an image'):
        convert('voc')
    (source / 'Annotations/a.xml').write_text('<annotation>')
    with pytest.raises(UserError, match=r'a\.xml is not XML'):
        convert('voc')
    for split in ('train', 'val'):
        write_text(source / f'ImageSets/Main/{split}.txt', 'z 1\n')
    with pytest.raises(UserError, match=r'train\.txt lists z, but there is no z\.xml'):
        convert('voc')
