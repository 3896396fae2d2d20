"""Tests converting YOLO to COCO."""

import pytest

from nat_mm.errors import UserError
from tests.data.formats.writing import HEIGHT, WIDTH, objects, write_image, write_text

NAMES = 'names: [nut, fig]\n'
BOX = '1 0.5 0.5 0.25 0.5'


def write_yolo(source, label, *lines, image=None):
    write_text(source / label, '\n'.join(lines))
    write_image(source / (image or label.replace('labels', 'images').replace('.txt', '.jpg')))


def test_boxes_and_polygons(source, convert):
    write_text(source / 'data.yaml', NAMES)
    for name in 'ab':
        write_yolo(source, f'labels/{name}.txt', BOX, '', '0 0 0 0.5 0 0.5 0.5 0 0.5')
    for coco in convert('yolo').values():
        assert [category['name'] for category in coco.cats.values()] == ['nut', 'fig']
        (fig,), (nut,) = objects(coco)['fig'], objects(coco)['nut']
        assert fig['bbox'] == [22.5, 10, 15, 20]
        assert 'segmentation' not in fig
        assert nut['segmentation'] == [[0, 0, 30, 0, 30, 20, 0, 20]]
        assert nut['area'] == WIDTH * HEIGHT / 4


@pytest.mark.parametrize(
    ('train', 'val', 'test'),
    [
        ('labels/train2017', 'labels/val2017', 'labels/test'),
        ('train/labels', 'valid/labels', 'test/labels'),
    ],
    ids=['ultralytics', 'roboflow'],
)
def test_folders_of_train_and_val_are_kept(source, convert, train, val, test, capsys):
    write_text(source / 'data.yaml', 'names: {0: nut, 1: fig}\ntrain: ../train/images\n')
    for name in 'abc':
        write_yolo(source, f'{train}/{name}.txt', BOX)
    write_yolo(source, f'{val}/a.txt', BOX, BOX)
    write_yolo(source, f'{test}/d.txt', BOX)
    splits = convert('yolo')
    assert {split: (len(c.imgs), len(c.anns)) for split, c in splits.items()} == {
        'train': (3, 3),
        'val': (1, 2),
    }
    output = capsys.readouterr().out
    assert 'as in the source' in output
    assert 'left out: 1 images of the test split' in output
    assert '5 of 5 objects have a box but no mask' in output


def test_labels_beside_images_and_names_in_a_text_file(source, convert):
    write_text(source / 'classes.txt', 'nut\nfig\n')
    for name in 'ab':
        write_yolo(source, f'{name}.txt', BOX)
    write_image(source / 'empty.jpg')
    splits = convert('yolo')
    assert sum(len(coco.imgs) for coco in splits.values()) == 3
    assert sum(len(coco.anns) for coco in splits.values()) == 2


def test_keypoints_are_left_out(source, convert):
    write_text(source / 'data.yaml', NAMES + 'kpt_shape: [1, 3]\n')
    for name in 'ab':
        write_yolo(source, f'labels/{name}.txt', f'{BOX} 0.1 0.2 2')
    for coco in convert('yolo').values():
        assert [each['bbox'] for each in coco.anns.values()] == [[22.5, 10, 15, 20]]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('2 0.5 0.5 0.1 0.1', r'a\.txt, line 2: class 2, but .*data\.yaml names 2, from 0 to 1'),
        ('0.5 0.5 0.5 0.1 0.1', r'a\.txt, line 2: class 0\.5'),
        ('0 0.5 0.5 0.1', r'a\.txt, line 2 has 3 numbers after the class'),
        ('0 0.5 0.5 0.1 0.1 0.9', r'a\.txt, line 2 has 5 numbers after the class'),
        ('0 30 20 15 20', r'a\.txt, line 2: 30 is not a fraction of the image.*pixels'),
        ('0 0.9 0.5 0.4 0.1', r'a\.txt, line 2: x = 66 is outside'),
        ('0 0.5 0.5 0 0.1', r'a\.txt, line 2: the box is 0 wide and 0\.1 high'),
        ('0 nan 0.5 0.1 0.1', r'a\.txt, line 2: x = nan is outside'),
        ('nut 0.5 0.5 0.1 0.1', r"a\.txt, line 2 must be numbers, got 'nut 0\.5"),
        ('0 0.1 0.1 0.2 0.1 0.3 0.1', r'a\.txt, line 2: the object is 12 x 0 pixels'),
    ],
)
def test_mistake_is_named(source, convert, tmp_path, line, message):
    write_text(source / 'data.yaml', NAMES)
    write_yolo(source, 'labels/b.txt', BOX)
    write_yolo(source, 'labels/a.txt', BOX, line)
    with pytest.raises(UserError, match=message):
        convert('yolo')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('file', 'text', 'message'),
    [
        ('labels/z.txt', BOX, r'labels/z\.txt has no image'),
        ('other.yaml', NAMES, r'several YAML files with names of classes: .*data\.yaml, .*other'),
        ('data.yaml', 'names: [', r'data\.yaml is not YAML'),
        ('data.yaml', 'names: {1: nut, 2: fig}', r'data\.yaml: names must be a list'),
        ('data.yaml', NAMES + 'train: train.txt', r'train is a list of images, train\.txt'),
        ('data.yaml', '{}', r'does not name its classes: write data\.yaml'),
    ],
    ids=['no image', 'two YAML files', 'no YAML', 'numbers from 1', 'list file', 'no names'],
)
def test_mistake_of_the_folder_is_named(source, convert, file, text, message):
    write_text(source / 'data.yaml', NAMES)
    write_yolo(source, 'labels/a.txt', BOX)
    write_text(source / file, text)
    with pytest.raises(UserError, match=message):
        convert('yolo')
