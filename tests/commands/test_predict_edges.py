"""Tests tools/predict.py with inputs that could hang it, exhaust the memory or crash it."""

import contextlib
import os
import shutil
import socket
import stat
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from nat_mm.commands.running import run_command
from nat_mm.errors import UserError
from nat_mm.files import encode_image, whole_file, write_image
from nat_mm.inference.images import UnreadableInput, read_image_file
from nat_mm.inference.inputs import LeftOut, find_inputs, read_frames
from nat_mm.inference.loading import ImageLoader
from nat_mm.inference.model import Model
from nat_mm.inference.video import VideoWriter

NOT_A_FILE = 'not a file, but a folder, pipe, socket or device'


def write_huge_png(path, width=30000, height=30000):
    """Writes a small file whose image takes gigabytes."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', checksum)

    compressor = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)  # 1 bit per pixel
    content = b''.join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    chunks = [(b'IHDR', header), (b'IDAT', content), (b'IEND', b'')]
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*each) for each in chunks))


def write_noise(path, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    path.write_bytes(encode_image('.png', image))


def write_clip(folder, height, width):
    path = folder / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (width, height))
    for _ in range(3):
        writer.write(np.zeros((height, width, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(small_data, tmp_path):
    """A folder with one image that can be predicted, last by name."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    shutil.copy(small_data / 'images' / 'validation' / '00.jpg', folder / 'zz.jpg')
    return folder


@pytest.fixture
def left_out(predict, configs, trained, tmp_path):
    """Predicts and returns the message about inputs left out; ``zz`` must be predicted."""

    def run(*arguments, task='segmentation'):
        model = [str(configs[task]), str(trained[task])]
        out = tmp_path / 'out'
        with pytest.raises(UserError) as raised:
            predict([*model, *map(str, arguments), '--out-dir', str(out)])
        suffix = '.png' if task == 'segmentation' else '.json'
        assert [path.name for path in (out / 'results').iterdir()] == [f'zz{suffix}']
        assert [path.name for path in (out / 'images').iterdir()] == ['zz.jpg']
        return str(raised.value)

    return run


def make_special_files(folder, suffix):
    """Makes whatever a folder may contain that is not a file; returns the names."""
    (folder / f'folder{suffix}').mkdir()
    os.mkfifo(folder / f'pipe{suffix}')
    (folder / f'device{suffix}').symlink_to('/dev/zero')
    (folder / f'dangling{suffix}').symlink_to(folder / 'gone')
    (folder / f'loop{suffix}').symlink_to(folder / f'loop{suffix}')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / f'socket{suffix}'))
    names = ('pipe', 'device', 'dangling', 'loop', 'socket', 'folder')
    return [f'{name}{suffix}' for name in names]


@pytest.mark.parametrize('way', ['folder', 'glob', 'one by one'])
def test_what_is_no_file_is_left_out(way, folder):
    names = make_special_files(folder, '.jpg')
    if way == 'one by one':
        names.remove('folder.jpg')  # images in this folder would be predicted
        entries = [str(folder / name) for name in (*names, 'zz.jpg')]
    else:
        entries = [str(folder if way == 'folder' else folder / '*.jpg')]
    left_out = LeftOut()
    frames = list(read_frames(find_inputs(entries), left_out))
    assert [frame.name for frame in frames] == ['zz']
    expected = dict.fromkeys(names, NOT_A_FILE)
    expected['dangling.jpg'] = 'No such file or directory'
    expected['loop.jpg'] = 'Too many levels of symbolic links'
    assert {path.name: reason for path, reason in left_out.items()} == expected


def test_what_is_no_file_but_has_the_name_of_a_video(folder, left_out):
    make_special_files(folder, '.mp4')
    message = left_out(folder / '*.mp4', folder / 'zz.jpg')
    assert message.startswith('6 of 7 inputs cannot be used: ')
    assert message.count(NOT_A_FILE) == 4


def test_pipe_that_takes_the_place_of_a_file(folder, monkeypatch):
    """A file turns into a pipe between being checked and being opened."""
    os.mkfifo(folder / 'pipe.jpg')
    regular = (folder / 'zz.jpg').stat()
    real = os.stat
    monkeypatch.setattr(os, 'stat', lambda p, **o: regular if p == folder / 'pipe.jpg' else real(p))
    with pytest.raises(UnreadableInput, match=NOT_A_FILE):
        read_image_file(folder / 'pipe.jpg')


def test_file_that_is_gone_when_its_turn_comes(folder):
    media = find_inputs([str(folder)])
    (folder / 'zz.jpg').unlink()
    left_out = LeftOut()
    assert list(read_frames(media, left_out)) == []
    assert list(left_out.values()) == ['No such file or directory']


def test_folder_that_cannot_be_listed(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('pathlib.Path.iterdir', refuse)
    with pytest.raises(UserError, match='cannot list the folder .*pictures: Permission denied'):
        find_inputs([str(folder)])


@pytest.mark.parametrize('task', ['segmentation', 'detection'])
def test_images_that_are_too_large_or_too_small(task, folder, left_out):
    write_huge_png(folder / 'bomb.png')
    with open(folder / 'sparse.jpg', 'wb') as file:
        file.truncate(10**12)
    write_noise(folder / 'strip.png', 1, 9999)
    if task == 'detection':  # resized to nothing; the segmentor's config does not resize
        write_noise(folder / 'narrow.png', 300, 1)
    message = left_out(folder, task=task)
    count = 4 if task == 'detection' else 3
    assert message.startswith(f'{count} of {count + 1} inputs cannot be used: ')
    assert 'bomb.png (30000 x 30000 pixels are more than 50 megapixels)' in message
    assert 'sparse.jpg (too large a file for 50 megapixels)' in message
    assert 'strip.png (one side of 9999 x 1 pixels is more than 1000 times the other)' in message
    assert ('narrow.png (cannot be predicted, of 1 x 300 pixels: ' in message) == (count == 4)


@pytest.mark.parametrize('number', ['0', '-1', 'nan'])
def test_wrong_limit_of_megapixels(number, predict, folder):
    with pytest.raises(UserError, match=f'--max-megapixels must be above 0, got {number}'):
        predict(['config.py', 'weights.pth', str(folder), '--max-megapixels', number])


def test_format_that_only_opencv_knows(tmp_path):
    """The size of an HDR file is known only after decoding, and checked then."""
    image = np.zeros((30, 50, 3), np.float32)
    assert cv2.imwrite(str(tmp_path / 'light.hdr'), image)
    load = ImageLoader().load_file
    assert load(tmp_path / 'light.hdr', max_megapixels=0.002).drawing.shape == (30, 50, 3)
    with pytest.raises(UnreadableInput, match='50 x 30 pixels are more than 0.001 megapixels'):
        load(tmp_path / 'light.hdr', max_megapixels=0.001)


def test_limit_of_megapixels(folder, left_out):
    write_noise(folder / 'large.png', 400, 500)
    clip = write_clip(folder.parent, height=480, width=640)
    message = left_out(clip, folder, '--max-megapixels', '0.1')
    assert 'large.png (500 x 400 pixels are more than 0.1 megapixels)' in message
    assert 'clip.avi (640 x 480 pixels are more than 0.1 megapixels)' in message


@pytest.mark.parametrize(
    'error',
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 TB")],
    ids=lambda error: type(error).__name__,
)
def test_image_that_takes_all_memory(error, folder, left_out, monkeypatch):
    """The other image of the batch is still predicted."""
    shutil.copy(folder / 'zz.jpg', folder / 'aa.jpg')
    infer, calls = Model.infer, []

    def fail(model, images):
        calls.append(len(images))
        if len(calls) <= 2:  # the batch, then its first image alone
            raise error
        return infer(model, images)

    monkeypatch.setattr(Model, 'infer', fail)
    message = left_out(folder, '--batch-size', '2')
    assert calls == [2, 1, 1]
    assert 'aa.jpg (cannot be predicted, of 128 x 96 pixels: ' in message
    assert 'memory' in message


@pytest.mark.parametrize('size', [(20, 128), (3, 5), (1, 300)], ids='{0[0]}x{0[1]}'.format)
def test_image_that_is_smaller_than_a_backbone_takes(
    size, folder, predict, configs, trained, tmp_path
):
    """Small images are padded, alone and in a batch."""
    height, width = size
    write_noise(folder / 'small.png', height, width)
    write_noise(folder / 'small2.png', height, width)
    model = [str(configs['segmentation']), str(trained['segmentation'])]
    predict([*model, str(folder), '--out-dir', str(tmp_path / 'out'), '--batch-size', '2'])
    names = ['small.png', 'small2.png', 'zz.png']
    shapes = {
        name: cv2.imread(str(tmp_path / 'out' / 'results' / name), cv2.IMREAD_UNCHANGED).shape
        for name in names
    }
    assert shapes == {'small.png': size, 'small2.png': size, 'zz.png': (96, 128)}


@pytest.mark.parametrize('batch_size', [1, 2, 4])
@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (RuntimeError("Kernel size can't be greater than actual input size\nat"), 'Kernel size'),
        (ZeroDivisionError('division by zero'), 'division by zero'),
        (AssertionError(), 'AssertionError: '),
        (KeyError('gt'), "KeyError: 'gt'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else '',
)
def test_image_that_the_model_cannot_take(error, reason, batch_size, folder, left_out, monkeypatch):
    write_noise(folder / 'bad.png', 96, 128)
    infer = Model.infer

    def fail(model, frames):
        if any(frame.name == 'bad' for frame in frames):
            raise error
        return infer(model, frames)

    monkeypatch.setattr(Model, 'infer', fail)
    message = left_out(folder, '--batch-size', str(batch_size))
    assert message.startswith('1 of 2 inputs cannot be used: ')
    assert f'bad.png (cannot be predicted, of 128 x 96 pixels: {reason}' in message
    assert '\n' not in message


def test_loader_that_fails_for_some(folder, left_out, monkeypatch):
    write_noise(folder / 'bad.png', 64, 64)
    load = ImageLoader.load_file

    def fail(loader, path, **options):
        if path.stem == 'bad':
            raise KeyError('bands')
        return load(loader, path, **options)

    monkeypatch.setattr(ImageLoader, 'load_file', fail)
    assert "bad.png (cannot be loaded: KeyError: 'bands')" in left_out(folder)


def test_loader_that_misses_another_file(folder, left_out, monkeypatch):
    write_noise(folder / 'bad.png', 64, 64)
    load = ImageLoader.load_file

    def read_depths(loader, path, **options):
        if path.stem == 'bad':
            Path('depths/bad.npy').read_bytes()
        return load(loader, path, **options)

    monkeypatch.setattr(ImageLoader, 'load_file', read_depths)
    assert 'bad.png (No such file or directory: depths/bad.npy)' in left_out(folder)


def test_result_that_cannot_be_written_ends_it(folder, predict, configs, trained, monkeypatch):
    def fail(path, place):
        raise OSError(28, 'No space left on device', path)

    shutil.copy(folder / 'zz.jpg', folder / 'aa.jpg')
    monkeypatch.setattr('nat_mm.files.os.replace', fail)
    model = [str(configs['segmentation']), str(trained['segmentation'])]
    with pytest.raises(UserError, match='^cannot write .*/results/aa.png: No space left on device'):
        predict([*model, str(folder), '--out-dir', str(folder / 'out')])


@pytest.mark.parametrize(
    'url', ['https://example.org/a.jpg', 'http://example.org/?a=*', 's3://bucket/a.jpg']
)
def test_address_is_refused(url, predict):
    with pytest.raises(UserError, match='is a URL, and nothing is downloaded here') as raised:
        predict(['config.py', 'weights.pth', url])
    assert str(raised.value).startswith(url)


def test_names_with_dots_are_kept_apart(folder, predict, configs, trained, tmp_path):
    for name in ('a.1.jpg', 'a.2.jpg'):
        shutil.copy(folder / 'zz.jpg', folder / name)
    model = [str(configs['segmentation']), str(trained['segmentation'])]
    predict([*model, str(folder), '--out-dir', str(tmp_path / 'out')])
    names = {path.name for path in (tmp_path / 'out' / 'images').iterdir()}
    assert names == {'a.1.jpg', 'a.2.jpg', 'zz.jpg'}


def test_fault_of_the_program_keeps_its_traceback(folder, predict, configs, trained, monkeypatch):
    def fail(model, images):
        raise RuntimeError('shapes do not fit')

    monkeypatch.setattr(Model, 'infer', fail)
    model = [str(configs['segmentation']), str(trained['segmentation'])]
    with pytest.raises(RuntimeError, match='shapes do not fit'):
        predict([*model, str(folder), '--out-dir', str(folder / 'out')])


def test_image_too_long_for_a_jpeg_leaves_nothing_behind(folder, left_out, monkeypatch):
    def draw(result, **options):
        return np.zeros((1, 70000, 3), np.uint8) if result.image.shape[0] == 64 else result.image

    write_noise(folder / 'long.png', 64, 64)
    monkeypatch.setattr('nat_mm.inference.results.SegmentationResult.draw', draw)
    message = left_out(folder)
    assert '70000 x 1 pixels do not fit in a file of type .jpg' in message


def test_video_that_cannot_be_written(folder, left_out, monkeypatch):
    clip = write_clip(folder.parent, height=48, width=64)
    monkeypatch.setattr('nat_mm.inference.video._ENCODER_OPTIONS', {'preset': 'none such'})
    message = left_out(clip, folder / 'zz.jpg')
    assert message.startswith('1 of 2 inputs cannot be used: ')
    assert 'cannot write a video of 64 x 48 pixels at 5 frames per second' in message


def test_names_as_long_as_file_systems_allow(folder, predict, configs, trained, tmp_path):
    """A name of 254 bytes is predicted; one that leaves no room for .json is left out."""
    fits, too_long = 'a' * 250, 'b' * 251
    for name in (fits, too_long):
        shutil.copy(folder / 'zz.jpg', folder / f'{name}.jpg')
    out = tmp_path / 'out'
    model = [str(configs['detection']), str(trained['detection'])]
    with pytest.raises(UserError, match='1 of 3 .*b.jpg .its name is too long'):
        predict([*model, str(folder), '--out-dir', str(out)])
    names = {path.name for path in (out / 'results').iterdir()}
    assert names == {f'{fits}.json', 'zz.json'}
    assert (out / 'images' / f'{fits}.jpg').exists()


def test_names_that_are_no_usual_text(folder, predict, configs, trained, tmp_path, capsys):
    names = [os.fsdecode(name) for name in (b'\xff', b'-x', b'two\nlines', b'\x1b[2J', b'$(id);')]
    for name in names:
        shutil.copy(folder / 'zz.jpg', folder / f'{name}.jpg')
        (folder / f'{name}.broken.jpg').touch()
    model = [str(configs['detection']), str(trained['detection'])]
    with pytest.raises(SystemExit) as raised:
        run_command(lambda: predict([*model, str(folder), '--out-dir', str(tmp_path / 'out')]))
    assert raised.value.code == 2
    written = {path.name for path in (tmp_path / 'out' / 'results').iterdir()}
    assert written == {f'{name}.json' for name in (*names, 'zz')}
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith('error: 5 of 11 inputs cannot be used: ')
    assert line.isprintable()


@pytest.mark.parametrize('name', ['a' * 251 + '.png', 'b.png'])
def test_files_are_whole_or_not_there(name, tmp_path):
    path = tmp_path / name
    write_image(path, np.zeros((4, 4, 3), np.uint8))
    before = path.read_bytes()
    with contextlib.suppress(RuntimeError), whole_file(path) as unfinished:
        assert unfinished.suffix == '.png'
        unfinished.write_text('half')
        raise RuntimeError
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [name]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_video_of_the_longest_name(tmp_path):
    path = tmp_path / ('a' * 250 + '.mp4')
    writer = VideoWriter(path, fps=5, size=(48, 64))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    assert list(tmp_path.iterdir()) == [path]
