"""Tests how video files are written and read."""

import struct
import sys
from contextlib import closing
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from nat_mm.errors import FileWriteError, UserError
from nat_mm.inference.images import UnreadableInput
from nat_mm.inference.inputs import LeftOut, count_frames, find_inputs, read_frames
from nat_mm.inference.prediction import check_outputs
from nat_mm.inference.video import Video, VideoWriter

COLORS = [(30, 160, 240), (230, 40, 20), (10, 200, 30)]


def color_bars(height=48, width=96):
    """Makes three vertical bars, [height, width, 3], BGR."""
    return np.repeat(np.array([COLORS], np.uint8), width // 3, axis=1).repeat(height, axis=0)


def write_frames(path, codec, pixel_format, *, frames):
    with av.open(path, 'w') as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, pixel_format
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(color_bars(), format='bgr24')))
        container.mux(stream.encode())


def write_bars(path, frames=3, fps=12.5):
    image = color_bars()
    writer = VideoWriter(path, fps=fps, size=image.shape[:2])
    for _ in range(frames):
        writer.write(image)
    writer.close()
    return path


@pytest.fixture
def bars(tmp_path):
    return write_bars(tmp_path / 'bars.mp4')


def read(path, **options):
    return list(Video(path, **options).images(max_megapixels=1))


def test_browsers_can_play_it_while_it_loads(bars):
    with av.open(bars) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.pix_fmt) == ('h264', 'yuv420p')
    content = bars.read_bytes()
    assert 0 < content.index(b'moov') < content.index(b'mdat')


def test_colors(bars):
    capture = cv2.VideoCapture(str(bars))
    for image in (capture.read()[1], read(bars)[0]):
        for index, color in enumerate(COLORS):
            assert np.abs(image[24, 16 + 32 * index].astype(int) - color).max() <= 6


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path):
    image = color_bars()[:47, :95]
    writer = VideoWriter(tmp_path / 'odd.mp4', fps=5, size=(47, 95))
    writer.write(image)
    writer.close()
    (frame,) = read(tmp_path / 'odd.mp4')
    assert frame.shape == (48, 96, 3)
    assert np.abs(frame[-1, -1].astype(int) - image[-1, -1]).max() <= 6


@pytest.mark.parametrize('fps', [1, 12.5, 30000 / 1001, 1000])
def test_speed(fps, tmp_path):
    video = Video(write_bars(tmp_path / 'bars.mp4', fps=fps))
    assert video.frame_count() == 3
    assert video.fps() == pytest.approx(fps, rel=1e-6)


def test_speed_and_number_of_frames_of_a_format_that_only_has_its_duration(tmp_path):
    path = tmp_path / 'clip.mkv'
    write_frames(path, 'mpeg4', 'yuv420p', frames=10)
    video = Video(path)
    assert (video.frame_count(), video.fps()) == (10, 25)
    assert len(read(path)) == 10


def test_video_of_no_frame(tmp_path):
    VideoWriter(tmp_path / 'empty.mp4', fps=5, size=(48, 96)).close()
    assert [path.name for path in tmp_path.iterdir()] == ['empty.mp4']
    with pytest.raises(UnreadableInput, match='not a video that can be read'):
        read(tmp_path / 'empty.mp4')


def write_noise(path):
    with closing(VideoWriter(path, fps=5, size=(48, 96))) as writer:
        for image in np.random.default_rng(0).integers(0, 256, (100, 48, 96, 3), np.uint8):
            writer.write(image)


@pytest.mark.parametrize('size', [0, 10_000])
def test_full_disk(size, tmp_path, limit_file_size):
    limit_file_size(size)
    with pytest.raises(FileWriteError, match=f'^cannot write {tmp_path}/a.mp4: File too large$'):
        write_noise(tmp_path / 'a.mp4')
    assert list(tmp_path.iterdir()) == []


def test_size_that_the_codec_does_not_have(tmp_path):
    with pytest.raises(UnreadableInput, match='cannot write a video of 16400 x 20 pixels at 5 fr'):
        VideoWriter(tmp_path / 'wide.mp4', fps=5, size=(20, 16400))
    assert list(tmp_path.iterdir()) == []


def test_video_of_a_phone_that_was_held_upright(bars):
    """Such a file says that its frames must be rotated."""
    upright = struct.pack('>9i', 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    content = bytearray(bars.read_bytes())
    matrix = content.index(b'tkhd') + 44
    content[matrix : matrix + len(upright)] = upright
    bars.write_bytes(content)
    image = read(bars)[0]
    assert image.shape == (96, 48, 3)
    np.testing.assert_allclose(image, cv2.VideoCapture(str(bars)).read()[1], atol=6)


def test_damaged_frame_is_skipped(tmp_path):
    path = tmp_path / 'clip.mov'
    write_frames(path, 'png', 'rgb24', frames=20)
    beginning, first, second, rest = path.read_bytes().split(b'\x89PNG', maxsplit=3)
    path.write_bytes(b'\x89PNG'.join((beginning, first)) + b'none' + second + b'\x89PNG' + rest)
    assert len(read(path)) == 19


def test_large_frames_are_not_decoded(bars):
    with pytest.raises(UnreadableInput, match='96 x 48 pixels are more than 0.004 megapixels'):
        list(Video(bars).images(max_megapixels=0.004))


@pytest.mark.parametrize('name', ['a:b.mp4', 'concat:x.mp4', 'caf\u00e9 \udcff.mp4', '-x.mp4'])
def test_names_that_ffmpeg_would_take_for_something_else(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(read(write_bars(Path(name)))) == 3


def test_each_file_is_opened_once(tmp_path, monkeypatch):
    paths = [write_bars(tmp_path / f'{name}.mp4') for name in 'ab']
    opened, av_open = [], av.open
    monkeypatch.setattr(av, 'open', lambda *args: opened.append(args[0]) or av_open(*args))
    media = find_inputs(map(str, paths), max_frames=2)
    assert count_frames(media) == 4
    frames = list(read_frames(media, LeftOut()))
    assert [frame.video.fps() for frame in frames] == [12.5] * 4
    assert opened == [f'file:{path}' for path in paths]


def test_many_videos_are_not_all_open_at_once(tmp_path):
    assert count_frames([Video(tmp_path / f'{number}.mp4') for number in range(101)]) is None


def test_without_pyav(bars, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    media = find_inputs([str(bars)])
    with pytest.raises(UserError, match=r"^videos need PyAV, .*: pip install 'nat_mm\[video\]'$"):
        check_outputs(media, tmp_path / 'out')
    with pytest.raises(UserError, match='videos need PyAV'):
        list(read_frames(media, LeftOut()))
