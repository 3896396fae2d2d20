"""Tests the split into training and validation, and what is written."""

import os
import stat
from pathlib import Path

import pytest

from nat_mm.commands.convert_annotations import main as convert_annotations
from nat_mm.data.formats.annotated import AnnotatedImage, AnnotatedObject
from nat_mm.data.formats.split import split_images
from nat_mm.errors import UserError
from tests.data.formats.writing import polygon, write_image, write_labelme

SQUARE = ((10, 5), (30, 5), (30, 25), (10, 25))


def make_images(*classes):
    return [
        AnnotatedImage(
            Path(f'{number}.jpg'),
            60,
            40,
            tuple(AnnotatedObject(name, (0, 0, 9, 9)) for name in names),
        )
        for number, names in enumerate(classes)
    ]


def count(images, split, name):
    return sum(
        image.split == split and any(each.name == name for each in image.objects)
        for image in images
    )


def test_split_keeps_the_shares_of_classes():
    images = make_images(*[['a']] * 70, *[['a', 'b']] * 20, *[['c']] * 10, *[[]] * 20)
    split = split_images(images, val_fraction=0.2, seed=0)
    assert [image.path for image in split] == [image.path for image in images]
    assert sum(image.split == 'val' for image in split) == pytest.approx(24, abs=2)
    for name, total in {'a': 90, 'b': 20, 'c': 10}.items():
        assert count(split, 'val', name) == pytest.approx(total / 5, abs=1)
        assert count(split, 'train', name) + count(split, 'val', name) == total


def test_seed_decides_the_split():
    images = make_images(*[['a']] * 20)
    splits = [
        [image.split for image in split_images(images, val_fraction=0.5, seed=seed)]
        for seed in (0, 0, 1)
    ]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize('fraction', [0.01, 0.99])
def test_neither_part_is_empty(fraction):
    split = split_images(make_images(['a'], ['b'], ['a']), val_fraction=fraction, seed=0)
    assert {image.split for image in split} == {'train', 'val'}


@pytest.mark.parametrize('fraction', [0, 1, -0.2, float('nan')])
def test_fraction_out_of_range(fraction):
    with pytest.raises(UserError, match='between 0 and 1, got'):
        split_images(make_images(['a'], ['a']), val_fraction=fraction, seed=0)


def test_one_image_cannot_be_split(source, convert):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE))
    with pytest.raises(UserError, match='1 image cannot be split'):
        convert('labelme')


def test_images_of_equal_names_are_kept_apart(source, convert):
    for folder in ('monday', 'friday'):
        for name in 'ab':
            write_labelme(source / folder / f'{name}.json', polygon('nut', *SQUARE))
    splits = convert('labelme', '--val-fraction', '0.25')
    names = {image['file_name'] for image in splits['train'].imgs.values()}
    assert len(names) == 3
    assert sum('day_' in name for name in names) == 2


def test_images_that_differ_in_their_suffix_are_refused(source, convert, tmp_path):
    for name in ('train/a.jpg', 'train/a.png', 'val/b.jpg'):
        write_image(source / name)
        path = source / f'{name}.json'
        write_labelme(path, polygon('nut', *SQUARE), imagePath=path.stem)
    with pytest.raises(UserError, match=r'a\.png and .*a\.jpg have the same name'):
        convert('labelme')
    assert [path.name for path in tmp_path.iterdir()] == ['source']


def test_two_annotation_files_of_an_image_are_refused(source, convert):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE))
    for name in 'bcd':
        write_labelme(source / f'{name}.json', polygon('nut', *SQUARE), imagePath='a.jpg')
    with pytest.raises(UserError, match=r'a\.jpg is the image of two annotation files'):
        convert('labelme')


def test_nothing_is_overwritten(source, convert, tmp_path):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE))
    write_labelme(source / 'b.json', polygon('nut', *SQUARE))
    (tmp_path / 'out').mkdir()
    convert('labelme')
    with pytest.raises(UserError, match='exists and is not an empty folder'):
        convert('labelme')


def test_working_directory_is_filled(source, tmp_path, monkeypatch):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE))
    write_labelme(source / 'b.json', polygon('nut', *SQUARE))
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    convert_annotations(['labelme', str(source), '.'])
    assert sorted(path.name for path in Path().iterdir()) == ['annotations', 'images']


def test_full_disk_leaves_nothing(source, convert, tmp_path, limit_file_size):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE))
    write_labelme(source / 'b.json', polygon('nut', *SQUARE))
    limit_file_size(100)
    with pytest.raises(UserError, match=f'^cannot write {tmp_path}/out: File too large$'):
        convert('labelme')
    assert [path.name for path in tmp_path.iterdir()] == ['source']


def test_permissions_are_those_of_other_new_folders(source, convert, tmp_path):
    write_labelme(source / 'a.json', polygon('nut', *SQUARE))
    write_labelme(source / 'b.json', polygon('nut', *SQUARE))
    before = os.umask(0o027)
    try:
        convert('labelme')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'out').stat().st_mode) == 0o750


def test_label_images_need_masks(source, convert, tmp_path):
    write_image(source / 'a.jpg')
    write_image(source / 'b.jpg')
    for name, text in {'classes': 'nut', 'a': '0 .5 .5 .2 .2', 'b': ''}.items():
        (source / f'{name}.txt').write_text(text)
    with pytest.raises(UserError, match=r'a\.jpg: an object of class nut has only a box'):
        convert('yolo', '--label-images')
    assert [path.name for path in tmp_path.iterdir()] == ['source']


@pytest.mark.parametrize('kind', ['voc', 'yolo', 'labelme'])
def test_folder_without_annotations(source, convert, kind):
    with pytest.raises(UserError, match='source has no'):
        convert(kind)
    source.rmdir()
    with pytest.raises(UserError, match='there is no folder'):
        convert(kind)
