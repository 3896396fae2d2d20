"""Tests that checkpoint files are written whole or not at all, read without code, and streamed."""

import os
import re
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nat_mm.checkpoints import convert_checkpoint, load_pretrained, read_checkpoint
from nat_mm.errors import FileWriteError
from nat_mm.inference.checkpoint import read_for_model
from tests.checkpoints.models import assert_same, make_backbone, make_classifier
from tests.processes import run_alone


class RunsCode:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=['pth', 'safetensors'])
def checkpoint(request, save, tmp_path):
    """A classifier saved in either format."""
    path = tmp_path / f'classifier.{request.param}'
    convert_checkpoint(save(make_classifier(), 'source.pth'), str(path))
    (tmp_path / 'source.pth').unlink()
    return path


@pytest.mark.parametrize('share', [0, 0.001, 0.5, 0.999], ids=str)
def test_truncated_file_is_refused_and_nothing_is_written(checkpoint, share):
    os.truncate(checkpoint, int(share * checkpoint.stat().st_size))
    with pytest.raises(ValueError, match=r'classifier\.\w+ \(\d+ bytes\) is truncated') as caught:
        convert_checkpoint(str(checkpoint), str(checkpoint.with_name('out.pth')))
    assert '\n' not in str(caught.value)
    assert os.listdir(checkpoint.parent) == [checkpoint.name]
    with pytest.raises(ValueError, match='is truncated'):
        load_pretrained(make_backbone(), str(checkpoint))


@pytest.mark.parametrize('name', ['evil.pth', 'evil.bin', 'evil.safetensors'])
def test_code_is_refused_and_does_not_run(save, tmp_path, name):
    path = save({**make_classifier(), 'trap': RunsCode(tmp_path / 'ran')}, name)
    with pytest.raises(ValueError, match=r'evil\.\w+ (is refused: .*mkdir|.*safetensors file)'):
        convert_checkpoint(path, str(tmp_path / 'out.pth'))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    'text',
    ['made by tool X', '', '[1]', '3', 'null', '[' * 100_000],
    ids=['text', 'empty', 'list', 'number', 'null', 'deep'],
)
def test_metadata_of_other_tools_is_ignored(tmp_path, text):
    path = str(tmp_path / 'classifier.safetensors')
    save_file(make_classifier(), path, metadata={'format': 'pt', 'meta': text})
    assert read_checkpoint(path)['meta'] == {}
    convert_checkpoint(path, str(tmp_path / 'out.pth'))


@pytest.mark.parametrize(
    'content', [[1, 2], {'epoch': 3}, {}, {'state_dict': {}}, torch.ones(3)], ids=str
)
def test_file_without_weights(save, tmp_path, content):
    with pytest.raises(ValueError, match='checkpoint.pth holds no state dict'):
        convert_checkpoint(save(content), str(tmp_path / 'out.pth'))
    assert os.listdir(tmp_path) == ['checkpoint.pth']


def test_target_that_exists_is_kept_unless_told_otherwise(checkpoint):
    target = checkpoint.with_name('out.bin')
    target.write_bytes(b'precious')
    with pytest.raises(FileExistsError, match='out.bin exists already'):
        convert_checkpoint(str(checkpoint), str(target))
    assert target.read_bytes() == b'precious'
    convert_checkpoint(str(checkpoint), str(target), overwrite=True)
    assert 'state_dict' in torch.load(target)


def test_failed_conversion_keeps_the_target(save, tmp_path):
    path = save({'conv1.weight': torch.zeros(1)})
    target = tmp_path / 'out.pth'
    target.write_bytes(b'precious')
    with pytest.raises(ValueError, match='not a checkpoint of a NAT'):
        convert_checkpoint(path, str(target), overwrite=True)
    assert target.read_bytes() == b'precious'


@pytest.mark.parametrize('link', [False, True], ids=['same path', 'link'])
def test_source_is_not_the_target(checkpoint, link):
    target = checkpoint
    if link:
        target = checkpoint.with_name('link.pth')
        target.symlink_to(checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match='is the checkpoint to convert'):
        convert_checkpoint(str(checkpoint), str(target), overwrite=True)
    assert checkpoint.read_bytes() == before


def test_source_in_the_home_folder_is_not_the_target(checkpoint, monkeypatch):
    monkeypatch.setenv('HOME', str(checkpoint.parent))
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match='is the checkpoint to convert'):
        convert_checkpoint(f'~/{checkpoint.name}', str(checkpoint), overwrite=True)
    assert checkpoint.read_bytes() == before


def test_file_in_the_home_folder_is_found(checkpoint, monkeypatch):
    monkeypatch.setenv('HOME', str(checkpoint.parent))
    found = read_for_model(f'~/{checkpoint.name}')
    assert_same(found['state_dict'], read_for_model(str(checkpoint))['state_dict'])


@pytest.mark.parametrize(
    ('target', 'error', 'message'),
    [
        ('out.txt', ValueError, 'must end with one of .pth'),
        ('gone/out.pth', FileNotFoundError, 'no such folder: .*gone'),
        ('folder.pth', IsADirectoryError, 'folder.pth is a folder'),
    ],
    ids=['suffix', 'folder that is not there', 'target is a folder'],
)
def test_unsuitable_target(checkpoint, target, error, message):
    (checkpoint.parent / 'folder.pth').mkdir()
    with pytest.raises(error, match=message):
        convert_checkpoint(str(checkpoint), str(checkpoint.parent / target))


def test_written_files_have_the_usual_permissions(checkpoint):
    usual = checkpoint.with_name('usual')
    usual.touch()
    assert checkpoint.stat().st_mode == usual.stat().st_mode


def test_legacy_file_of_pytorch_is_read(tmp_path):
    weights = make_classifier()
    path = tmp_path / 'legacy.pth'
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(str(path)), weights)


@pytest.mark.parametrize('source', ['model.pth', 'model.safetensors'])
@pytest.mark.parametrize('target', ['out.pth', 'out.safetensors'])
def test_names_and_colors_of_the_classes_are_kept(save, tmp_path, source, target):
    detector = {f'backbone.{key}': value for key, value in make_backbone().state_dict().items()}
    meta = {'CLASSES': ('box', 'disc'), 'PALETTE': [[1, 2, 3], [4, 5, 6]], 'config': 'x = 1'}
    path = save({'meta': meta, 'state_dict': detector, 'optimizer': {'state': {}}})
    for name in (source, target):
        convert_checkpoint(path, path := str(tmp_path / name), overwrite=True)
    written = read_checkpoint(path)
    assert written.keys() == {'meta', 'state_dict'}
    assert written['meta'].keys() == {'dataset_meta'}
    assert list(written['meta']['dataset_meta']['classes']) == ['box', 'disc']
    assert written['meta']['dataset_meta']['palette'] == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('share', [0.1, 0.9], ids=['largest tensor', 'whole'])
def test_full_disk_leaves_nothing(save, tmp_path, limit_file_size, suffix, share):
    weights = make_classifier()
    path = save(weights)
    size = os.path.getsize(path)
    largest = max(tensor.nbytes for tensor in weights.values())
    assert 0.1 * size < largest < 0.9 * size
    limit_file_size(int(share * size))
    with pytest.raises(
        FileWriteError, match=rf'^cannot write .*out\.{suffix}: .*[Ff]ile too large'
    ):
        convert_checkpoint(path, str(tmp_path / f'out.{suffix}'))
    assert os.listdir(tmp_path) == ['checkpoint.pth']


# One stage of 8 layers with 512 channels: the largest tensor has 3 MiB, all have 59 MiB, of which
# 24 MiB are the projections to query, key and value.
CHANNELS, LAYERS, MIB = 512, 8, 2**20


def own_memory():
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'RssAnon:\s+(\d+) kB', status).group(1)) * 1024


def measure(source, folder):
    """Returns the most bytes that conversions needed beyond those already in use."""
    finished, highest, before = threading.Event(), 0, own_memory()

    def watch():
        nonlocal highest
        while not finished.wait(0.0005):
            highest = max(highest, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for suffix in ('bin', 'safetensors'):
        theirs = f'{folder}/theirs.{suffix}'
        convert_checkpoint(source, theirs, to='huggingface-nat', overwrite=True)
        for own in ('pth', 'safetensors'):
            convert_checkpoint(theirs, f'{folder}/ours.{own}', overwrite=True)
    finished.set()
    watcher.join()
    return highest - before


def measure_second(small, large, folder):
    """Measures after a first round, which imports and allocates what any conversion needs."""
    measure(small, folder)
    return measure(large, folder)


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='needs /proc')
def test_no_second_copy_in_memory(save, tmp_path):
    layer = {
        'attn.qkv.weight': (3 * CHANNELS, CHANNELS),
        'attn.rpb': (16, 13, 13),
        'attn.proj.weight': (CHANNELS, CHANNELS),
        'mlp.fc1.weight': (2 * CHANNELS, CHANNELS),
        'mlp.fc2.weight': (CHANNELS, 2 * CHANNELS),
    }
    weights = {'patch_embed.norm.weight': torch.randn(CHANNELS)}
    for index in range(LAYERS):
        for name, shape in layer.items():
            weights[f'levels.0.blocks.{index}.{name}'] = torch.randn(shape)
    large = save(weights, 'large.pth')
    assert os.path.getsize(large) > 58 * MIB
    used = run_alone(measure_second, save(make_classifier()), large, str(tmp_path))
    assert 0 <= used < 4 * MIB
