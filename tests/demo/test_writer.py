import contextlib
import io
import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nat_mm.commands.make_scenes import main
from nat_mm.commands.running import run_command
from nat_mm.demo import KINDS, DatasetOptions, write_dataset, writer
from nat_mm.errors import FileWriteError
from tests.processes import run_alone

OPTIONS = DatasetOptions(train_scenes=6, val_scenes=4, image_size=96)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    assert write_dataset(folder, OPTIONS, progress=False)
    return folder


def read_coco(dataset, split):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(dataset / 'annotations' / f'instances_{split}.json'))


def write(folder):
    write_dataset(folder, OPTIONS, progress=False)


def test_files_are_byte_identical_in_another_process(dataset, tmp_path):
    """The other process has a different hash seed, and so a different order of sets."""
    run_alone(write, tmp_path / 'again')
    assert contents(tmp_path / 'again') == contents(dataset)


def test_another_seed_gives_other_pictures_and_annotations(dataset, tmp_path):
    write_dataset(tmp_path / 'other', replace(OPTIONS, seed=1), progress=False)
    first, second = contents(dataset), contents(tmp_path / 'other')
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] == second[name]]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_are_valid_coco(dataset, split):
    coco = read_coco(dataset, split)
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(KINDS)
    assert len(coco.anns) > len(coco.imgs) == {'train': 6, 'val': 4}[split]
    for annotation in coco.anns.values():
        image = coco.imgs[annotation['image_id']]
        mask = coco.annToMask(annotation)
        assert mask.shape == (image['height'], image['width']) == (96, 96)
        assert mask.sum() == annotation['area'] > 0
        rows, columns = np.where(mask)
        frame = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert annotation['bbox'] == frame


@pytest.mark.parametrize('split', ['train', 'val'])
def test_label_maps_show_the_same_scenes_as_the_annotations(dataset, split):
    coco = read_coco(dataset, split)
    for image in coco.imgs.values():
        stem = Path(image['file_name']).stem
        picture = cv2.imread(str(dataset / 'images' / split / image['file_name']))
        labels = cv2.imread(str(dataset / 'labels' / split / f'{stem}.png'), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (96, 96, 3)
        assert labels.shape == (96, 96)
        assert labels.dtype == np.uint8
        expected = np.zeros((96, 96), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
            expected[coco.annToMask(annotation) > 0] = annotation['category_id'] + 1
        np.testing.assert_array_equal(np.where(labels > 1, labels, 0), expected)


@pytest.mark.parametrize('what', ['bbox', 'segm'])
def test_the_annotations_themselves_score_one(dataset, what):
    coco = read_coco(dataset, 'val')
    perfect = [{**annotation, 'score': 1.0} for annotation in coco.anns.values()]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(perfect), what)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_the_same_data_set_is_reused_untouched(dataset):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob('*')}
    assert not write_dataset(dataset, OPTIONS, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in dataset.rglob('*')}


def test_other_options_need_overwrite(tmp_path):
    small = {'train_scenes': 1, 'val_scenes': 1, 'image_size': 64}
    folder = tmp_path / 'data'
    write_dataset(folder, DatasetOptions(**small), progress=False)
    with pytest.raises(FileExistsError, match='dataset made with another seed'):
        write_dataset(folder, DatasetOptions(**small, seed=5), progress=False)
    assert json.loads((folder / 'options.json').read_text())['seed'] == 0
    assert write_dataset(folder, DatasetOptions(**small, seed=5), overwrite=True, progress=False)
    assert json.loads((folder / 'options.json').read_text())['seed'] == 5


@pytest.mark.parametrize('overwrite', [False, True], ids=['plain', 'overwrite'])
def test_a_foreign_folder_is_refused_and_kept(tmp_path, overwrite):
    (tmp_path / 'thesis.txt').write_text('precious')
    (tmp_path / 'options.json').write_text('{"colour": "red"}')
    with pytest.raises(FileExistsError, match='is not empty and holds no dataset'):
        write_dataset(tmp_path, OPTIONS, overwrite=overwrite, progress=False)
    assert (tmp_path / 'thesis.txt').read_text() == 'precious'


@pytest.mark.parametrize(
    'name', ['thesis.txt', 'images/train/holiday.jpg', 'labels/mine/00000.png', 'empty/']
)
def test_a_dataset_with_files_of_the_user_is_not_overwritten(tmp_path, name):
    small = {'train_scenes': 1, 'val_scenes': 1, 'image_size': 64}
    write_dataset(tmp_path, DatasetOptions(**small), progress=False)
    path = tmp_path / name
    if name.endswith('/'):
        path.mkdir()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text('precious')
    before = contents(tmp_path)
    named = name.removesuffix('/00000.png').removesuffix('/')
    with pytest.raises(FileExistsError, match=f'also holds {named}, which is no part of'):
        write_dataset(tmp_path, DatasetOptions(**small, seed=5), overwrite=True, progress=False)
    assert contents(tmp_path) == before
    assert path.exists()
    assert not write_dataset(tmp_path, DatasetOptions(**small), overwrite=True, progress=False)


def test_linked_images_are_not_overwritten(tmp_path):
    small = {'train_scenes': 1, 'val_scenes': 1, 'image_size': 64}
    folder = tmp_path / 'data'
    write_dataset(folder, DatasetOptions(**small), progress=False)
    (folder / 'images').rename(tmp_path / 'elsewhere')
    (folder / 'images').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(FileExistsError, match='also holds images, which is no part of'):
        write_dataset(folder, DatasetOptions(**small, seed=5), overwrite=True, progress=False)
    assert (tmp_path / 'elsewhere' / 'train' / '00000.jpg').is_file()


@pytest.mark.parametrize('name', ['.', '../linked'], ids=['working-directory', 'link'])
def test_the_working_directory_and_links_are_filled_and_overwritten(tmp_path, monkeypatch, name):
    small = {'train_scenes': 1, 'val_scenes': 1, 'image_size': 64}
    folder = tmp_path / 'data'
    folder.mkdir()
    (tmp_path / 'linked').symlink_to(folder)
    monkeypatch.chdir(folder)
    for seed in (0, 5):
        options = DatasetOptions(**small, seed=seed)
        assert write_dataset(name, options, overwrite=True, progress=False)
        assert json.loads(Path('options.json').read_text())['seed'] == seed
        assert Path('images/train/00000.jpg').is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'linked']


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'data').write_text('')
    with pytest.raises(FileExistsError, match='is a file, not a folder'):
        write_dataset(tmp_path / 'data', OPTIONS, progress=False)


def test_an_error_on_the_way_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(split, index, options):
        raise OSError('no space left on device')

    monkeypatch.setattr(writer, 'make_scene', fail)
    with pytest.raises(OSError, match='no space left'):
        write_dataset(tmp_path / 'data', OPTIONS, progress=False)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_reported(tmp_path, limit_file_size):
    limit_file_size(1000)
    with pytest.raises(FileWriteError, match=f'^cannot write {tmp_path}/data: File too large$'):
        write_dataset(tmp_path / 'data', OPTIONS, progress=False)
    assert not list(tmp_path.iterdir())


def test_an_error_keeps_the_earlier_dataset(tmp_path, monkeypatch):
    """The new one is written in the folder, which may be on a disk of its own, which is full."""
    small = {'train_scenes': 1, 'val_scenes': 1, 'image_size': 64}
    folder, other = tmp_path / 'data', DatasetOptions(**small, seed=5)
    write_dataset(folder, DatasetOptions(**small), progress=False)
    before = {path: path.read_bytes() for path in folder.rglob('*.*')}

    def fail(split, index, options):
        assert [path.name for path in tmp_path.iterdir()] == ['data']
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(writer, 'make_scene', fail)
    with pytest.raises(FileWriteError, match='No space left on device'):
        write_dataset(folder, other, overwrite=True, progress=False)
    assert {path: path.read_bytes() for path in folder.rglob('*.*')} == before


def test_permissions_are_those_of_other_new_folders(tmp_path):
    before = os.umask(0o027)
    try:
        write_dataset(tmp_path / 'data', OPTIONS, progress=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'data').stat().st_mode) == 0o750


def test_an_empty_folder_is_filled(tmp_path):
    options = DatasetOptions(train_scenes=1, val_scenes=1, image_size=64)
    assert write_dataset(tmp_path, options, progress=False)
    assert (tmp_path / 'annotations' / 'instances_train.json').is_file()


@pytest.fixture
def command(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['nat_mm.demo', *map(str, arguments)])
        run_command(main)

    return run


def test_command_writes_then_reuses(tmp_path, command, capsys):
    arguments = [tmp_path / 'data', '--train-scenes', 2, '--val-scenes', 1, '--seed', 3]
    command(*arguments)
    assert capsys.readouterr().out.endswith('data: written\n')
    command(*arguments)
    assert capsys.readouterr().out.endswith('data: already there, reused\n')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--image-size', 8], 'error: image_size must be at least 64; got 8\n'),
        (['--seed', -1], 'error: seed must be at least 0; got -1\n'),
    ],
    ids=['image-size', 'seed'],
)
def test_command_reports_a_wrong_option_in_one_line(tmp_path, command, capsys, arguments, message):
    with pytest.raises(SystemExit, match='2'):
        command(tmp_path / 'data', *arguments)
    assert capsys.readouterr().err == message
    assert not list(tmp_path.iterdir())


def test_command_refuses_a_foreign_folder_in_one_line(tmp_path, command, capsys):
    (tmp_path / 'thesis.txt').write_text('precious')
    with pytest.raises(SystemExit, match='2'):
        command(tmp_path)
    assert capsys.readouterr().err.startswith(f'error: {tmp_path} is not empty')
