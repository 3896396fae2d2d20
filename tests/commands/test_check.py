"""Tests tools/check.py and the same checks before training and testing."""

import json
import os
import shutil
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
from mmengine.config import Config

import nat_mm
from nat_mm.commands import check, train
from nat_mm.data import check_cache
from nat_mm.data.findings import Finding
from nat_mm.data.progress import no_progress
from nat_mm.errors import UserError


@pytest.fixture
def run(configs, capsys):
    """Runs the command and returns its exit code and output."""

    def call(*arguments, task='detection'):
        try:
            check.main([str(configs[task]), *map(str, arguments)])
            code = 0
        except SystemExit as raised:
            code = raised.code
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def annotations(small_data, tmp_path):
    """A copy of the training annotations, and the option that names it."""
    path = tmp_path / 'annotations.json'
    shutil.copy(small_data / 'coco' / 'training.json', path)
    return path, f'train_dataloader.dataset.ann_file={path}'


def spoil(path, **values):
    content = json.loads(path.read_text())
    content['annotations'][3].update(values)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_sound_data(task, run, configs):
    code, out = run(task=task)
    assert code == 0
    assert out.endswith(f'{configs[task]}: no errors\n')
    assert 'error' not in out.replace('no errors', '')
    assert 'warning' not in out


def test_table(run):
    _, out = run()
    lines = [''.join(each if each.isalnum() else ' ' for each in line) for line in out.split('\n')]
    rows = [line.split() for line in lines]
    assert ['class', 'images', 'instances', 'small', 'medium', 'large'] in rows
    assert rows.count(['disc', '6', '6', '0', '6', '0']) == 1
    assert ['images', '6'] in rows


def test_all_that_is_wrong(run, annotations):
    path, option = annotations
    spoil(path, bbox=[1, 2, 3], iscrowd='no', image_id=77)
    code, out = run('--cfg-options', option)
    assert code == 2
    errors = [line for line in out.splitlines() if line.startswith('error: ')]
    assert len(errors) == 2
    assert 'bbox is not four numbers (1 of 12, first: id 4, [1, 2, 3])' in errors[0]
    (warning,) = (line for line in out.splitlines() if line.startswith('warning: '))
    assert 'image_id is not in images' in warning


def test_config_without_a_model(run):
    code, out = run('--cfg-options', 'model=None')
    assert code == 2
    (line,) = (line for line in out.splitlines() if line.startswith(('error: ', 'warning: ')))
    assert line.endswith('has no model')


def test_check_that_stumbles_over_data(run, monkeypatch):
    def stumble(config):
        yield from config.colors.values()

    monkeypatch.setattr('nat_mm.data.check.find_palette_problems', stumble)
    code, out = run()
    assert code == 0
    assert 'warning: palettes could not be checked completely: AttributeError: ' in out
    assert 'no errors' in out


def test_histogram(run, tmp_path):
    code, out = run('--histogram', tmp_path / 'drawn' / 'data.svg')
    assert code == 0
    assert f'wrote {tmp_path}/drawn/data.svg' in out
    assert '<svg' in (tmp_path / 'drawn' / 'data.svg').read_text()


def test_histogram_without_data(configs, tmp_path, capsys):
    options = ['--cfg-options', 'train_dataloader.dataset.ann_file=missing.json']
    options += ['val_dataloader=None', 'test_dataloader=None']
    with pytest.raises(UserError, match='there is no dataset to draw a histogram of'):
        check.main([str(configs['detection']), '--histogram', str(tmp_path / 'a.png'), *options])
    assert 'error: ann_file of the dataset does not exist' in capsys.readouterr().out


def test_histogram_of_another_format(configs):
    with pytest.raises(UserError, match=r'--histogram must end with .png, .pdf or .svg'):
        check.main([str(configs['detection']), '--histogram', 'data.txt'])


@pytest.fixture
def before_training(configs, monkeypatch, tmp_path, capsys):
    """Runs train.py up to training; returns its output and whether it would train."""
    trained = []
    monkeypatch.setattr(train, 'train', lambda *_: trained.append(True))

    def call(*options, arguments=()):
        overrides = ['--cfg-options', *options] if options else []
        train.main(
            [str(configs['detection']), '--work-dir', str(tmp_path / 'w'), *arguments, *overrides]
        )
        return capsys.readouterr(), bool(trained)

    return call


def test_training_on_sound_data_says_nothing(before_training):
    printed, trained = before_training()
    assert trained
    assert printed == ('', '')


def test_training_with_an_error(before_training, annotations, tmp_path):
    path, option = annotations
    spoil(path, bbox=[1, 2, 3])
    with pytest.raises(UserError, match='bbox is not four numbers') as raised:
        before_training(option)
    assert 'more' not in str(raised.value)
    assert not (tmp_path / 'w').exists()


def test_training_with_errors(before_training, annotations, configs):
    path, option = annotations
    spoil(path, bbox=[1, 2, 3], iscrowd='no')
    expected = f' (and 1 more: nat-mm check {configs["detection"]} lists them)'
    with pytest.raises(UserError) as raised:
        before_training(option)
    assert str(raised.value).endswith(expected)


def test_training_with_a_warning(before_training, annotations):
    path, option = annotations
    spoil(path, area=0)
    printed, trained = before_training(option)
    assert trained
    assert printed.err.startswith('warning: annotation file ')
    assert len(printed.err.splitlines()) == 1


def test_training_without_a_check(before_training, annotations):
    path, option = annotations
    spoil(path, bbox=[1, 2, 3])
    _, trained = before_training(option, arguments=['--no-check'])
    assert trained


def test_only_the_first_process_checks(before_training, annotations, monkeypatch):
    path, option = annotations
    spoil(path, bbox=[1, 2, 3])
    monkeypatch.setattr(train, 'is_main_process', lambda launcher: False)
    _, trained = before_training(option)
    assert trained


def test_a_second_run_does_not_check_again(before_training, annotations, monkeypatch):
    path, option = annotations
    spoil(path, area=0)
    first, _ = before_training(option)
    with monkeypatch.context() as patch:
        patch.setattr(check_cache, 'check_config', None)
        second, _ = before_training(option)
        assert second == first
    spoil(path, bbox=[1, 2, 3])
    with pytest.raises(UserError, match='bbox is not four numbers'):
        before_training(option)


def test_keys_that_are_not_text(monkeypatch):
    found = []
    report = check_cache.Report((), [])
    monkeypatch.setattr(check_cache, 'check_config', lambda *_, **__: found.append(1) or report)
    for number in (1, 1, 2):
        config = Config(dict(colors={(0, 0, 0): number, 255: 1, 'rest': 2}))
        check_cache.check_once(config, splits=['train'], files=True, progress=no_progress)
    assert len(found) == 2


@pytest.mark.parametrize(
    'change', ['config', 'image folder', 'evaluator', 'checks', 'own code', 'OpenCV']
)
def test_what_has_changed_is_checked_again(
    change, before_training, annotations, monkeypatch, small_data, tmp_path
):
    images, (_, option) = tmp_path / 'images', annotations
    evaluator = tmp_path / 'val.json'
    shutil.copytree(small_data / 'images' / 'training', images)
    shutil.copy(small_data / 'coco' / 'validation.json', evaluator)
    own_code = tmp_path / 'own_dataset.py'
    own_code.touch()
    own_module = SimpleNamespace(__file__=str(own_code))
    monkeypatch.setitem(sys.modules, 'own_dataset', own_module)
    options = [
        option,
        'custom_imports.imports=[nat_mm,own_dataset]',
        f'train_dataloader.dataset.data_prefix.img={images}',
        f'val_evaluator.ann_file={evaluator}',
    ]
    before_training(*options)
    if change == 'config':
        options.append('model.roi_head.mask_head.num_convs=2')
    elif change == 'image folder':
        (images / '05.jpg').rename(images / '06.jpg')
    elif change == 'evaluator':
        os.utime(evaluator, (1, 1))
    elif change == 'checks':
        (tmp_path / 'added').mkdir()
        (tmp_path / 'added/check.py').write_text('"""A check of a later version."""')
        monkeypatch.setattr(nat_mm, '__path__', [*nat_mm.__path__, str(tmp_path / 'added')])
    elif change == 'own code':
        own_code.write_text('"""A class was added."""')
    else:
        monkeypatch.setattr(check_cache.cv2, '__version__', '99')
    found = []
    report = check_cache.Report((), [Finding('as before')])
    monkeypatch.setattr(check_cache, 'check_config', lambda *_, **__: found.append(1) or report)
    with pytest.raises(UserError, match='as before'):
        before_training(*options)
    assert found


@pytest.mark.parametrize('folder', ['a file', 'read-only'])
def test_training_without_a_cache_folder(folder, before_training, monkeypatch, tmp_path):
    place = tmp_path / 'cache'
    if folder == 'a file':
        place.write_text('')
    else:
        place = '/proc/self'
    monkeypatch.setenv('XDG_CACHE_HOME', str(place))
    printed, trained = before_training()
    assert trained
    assert printed.err == ''


def test_test_command(test, configs, trained, small_data, tmp_path):
    content = json.loads((small_data / 'coco' / 'validation.json').read_text())
    content['categories'].reverse()
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    options = [f'test_dataloader.dataset.ann_file={path}', f'test_evaluator.ann_file={path}']
    arguments = [str(configs['detection']), str(trained['detection'])]
    with pytest.raises(UserError, match='in a different order from the categories'):
        test([*arguments, '--work-dir', str(tmp_path), '--cfg-options', *options])


def test_what_depends_on_the_launcher_is_checked_again(before_training, monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    reports = []

    def find(config, **_):
        reports.append(config.launcher)
        return check_cache.Report((), [])

    monkeypatch.setattr(check_cache, 'check_config', find)
    monkeypatch.setattr(train, 'prepare_launcher', lambda _: None)
    monkeypatch.setattr(train, 'is_main_process', lambda _: True)
    for launcher in ('pytorch', 'none', 'pytorch'):
        before_training(arguments=['--launcher', launcher])
    assert reports == ['pytorch', 'none']


@pytest.mark.parametrize('name', ['[unk]', 'n/a [/s]', 'car [parked]'])
def test_names_with_brackets(name, configs, annotations, tmp_path, capsys):
    path, _ = annotations
    content = json.loads(path.read_text())
    content['categories'][0]['name'] = name
    folder = tmp_path / '[a] b'
    folder.mkdir()
    (folder / '[c].json').write_text(json.dumps(content))
    dataset = dict(ann_file=f'{folder}/[c].json', metainfo=dict(classes=(name, 'disc')))
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{configs['detection']}'\ntrain_dataloader = dict(dataset={dataset})\n"
    )
    with suppress(SystemExit):
        check.main([str(config)])
    out = capsys.readouterr().out
    assert name in out
    assert '[a] b/[c].json' in out
