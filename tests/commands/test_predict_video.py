"""Tests tools/predict.py on videos, cameras and globs, and when it is interrupted."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from nat_mm.errors import UserError
from nat_mm.inference.inputs import find_inputs
from nat_mm.inference.model import Model
from nat_mm.inference.result_files import ResultFiles
from nat_mm.inference.video import Video
from tests.processes import ForkedPython

ROOT = Path(__file__).parents[2]
FRAMES = 4
FPS = 12.5


def write_video(path, frames=FRAMES, height=96, width=128):
    """Writes a video of a bright disc that moves to the right on gray."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), FPS, (width, height))
    for number in range(frames):
        image = np.full((height, width, 3), 120, np.uint8)
        cv2.circle(image, (30 + 10 * (number % 8), 50), 20, (240, 240, 240), -1)
        writer.write(image)
    writer.release()
    return path


def read_video(path):
    """Returns the images of a video and their number per second."""
    capture = cv2.VideoCapture(str(path))
    images = []
    while True:
        found, image = capture.read()
        if not found:
            return images, capture.get(cv2.CAP_PROP_FPS)
        images.append(image)


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / 'clip.mp4')


@pytest.fixture
def run(predict, configs, trained, tmp_path):
    """Predicts and returns the output folder."""

    def start(*arguments, task='segmentation'):
        model = [str(configs[task]), str(trained[task])]
        predict([*model, *map(str, arguments), '--out-dir', str(tmp_path / 'out')])
        return tmp_path / 'out'

    return start


@pytest.fixture
def mistake(run):
    """Runs a prediction that must be refused and returns the message."""

    def start(*arguments, **options):
        with pytest.raises(UserError) as raised:
            run(*arguments, **options)
        return str(raised.value)

    return start


def test_detector_on_a_video(run, video):
    out = run(video, '--score-threshold', '0', '--batch-size', '3', task='detection')
    images, fps = read_video(out / 'videos' / 'clip.mp4')
    assert [image.shape for image in images] == [(96, 128, 3)] * FRAMES
    assert fps == FPS
    frames = [
        json.loads((out / 'results' / 'clip' / f'{number:06d}.json').read_text())
        for number in range(FRAMES)
    ]
    assert [(frame['image'], frame['frame']) for frame in frames] == [
        ('clip.mp4', number) for number in range(FRAMES)
    ]
    check_coco(out / 'coco', frames)


def check_coco(folder, frames):
    """Checks that COCO's evaluation reads from the files what the images' JSON files contain."""
    images = COCO(str(folder / 'images.json'))
    results = images.loadRes(str(folder / 'results.json'))
    assert images.loadCats(images.getCatIds()) == [
        {'id': 1, 'name': 'box'},
        {'id': 2, 'name': 'disc'},
    ]
    assert len(images.imgs) == len(frames)
    for image, frame in zip(images.imgs.values(), frames, strict=True):
        assert (image['file_name'], image.get('frame')) == (frame['image'], frame.get('frame'))
        assert (image['height'], image['width']) == (frame['height'], frame['width'])
        found = results.loadAnns(results.getAnnIds(imgIds=image['id']))
        assert len(found) == len(frame['instances']) > 0
        for entry, instance in zip(found, frame['instances'], strict=True):
            left, top, right, bottom = instance['bbox']
            assert entry['bbox'] == pytest.approx([left, top, right - left, bottom - top])
            assert entry['category_id'] == instance['label'] + 1
            assert entry['score'] == instance['score']
            assert results.annToMask(entry).shape == (96, 128)


def test_detector_on_a_folder(run, small_data):
    out = run(small_data / 'images/validation', '--score-threshold', '0', task='detection')
    paths = [out / 'results' / f'{name}.json' for name in ('00', '01', '02')]
    check_coco(out / 'coco', [json.loads(path.read_text()) for path in paths])


def test_coco_without_any_object(run, video):
    out = run(video, '--score-threshold', '1', '--max-frames', '1', task='detection')
    assert json.loads((out / 'coco' / 'results.json').read_text()) == []
    assert len(json.loads((out / 'coco' / 'images.json').read_text())['images']) == 1


def test_segmentor_on_a_video_and_on_its_images(run, tmp_path):
    """The animation has an odd height and width, which an MP4 file cannot have."""
    images = [Image.fromarray(np.full((95, 127, 3), 60 * number, np.uint8)) for number in range(3)]
    images[0].save(tmp_path / 'clip.gif', save_all=True, append_images=images[1:], duration=80)
    for number, image in enumerate(read_video(tmp_path / 'clip.gif')[0]):
        cv2.imwrite(str(tmp_path / f'image{number}.png'), image)
    out = run(tmp_path / 'clip.gif', tmp_path / 'image*.png', '--fps', '5')
    for number in range(3):
        frame, picture = (
            cv2.imread(str(out / 'results' / name), cv2.IMREAD_UNCHANGED)
            for name in (f'clip/{number:06d}.png', f'image{number}.png')
        )
        assert frame.shape == (95, 127)
        np.testing.assert_array_equal(frame, picture)
        assert (out / 'images' / f'image{number}.jpg').exists()
    drawn, fps = read_video(out / 'videos' / 'clip.mp4')
    assert [image.shape for image in drawn] == [(96, 128, 3)] * 3
    assert fps == 5


def test_a_shorter_run_leaves_nothing_of_a_longer_one(run, video):
    run(video)
    out = run(video, '--max-frames', '2')
    assert len(read_video(out / 'videos' / 'clip.mp4')[0]) == 2
    names = sorted(path.name for path in (out / 'results' / 'clip').iterdir())
    assert names == ['000000.png', '000001.png']


def test_broken_videos_do_not_stop_the_rest(mistake, video, small_data, tmp_path):
    # An AVI file ends with its index. Without the index, OpenCV still reads the frames before.
    content = write_video(tmp_path / 'cut.avi', frames=12).read_bytes()
    (tmp_path / 'cut.avi').write_bytes(content[: len(content) * 3 // 4])
    (tmp_path / 'text.mov').write_text('not a video')
    picture = small_data / 'images/validation/00.jpg'
    message = mistake(tmp_path / 'text.mov', tmp_path / 'cut.avi', video, picture)
    assert message.startswith('2 of 4 inputs cannot be used: ')
    assert f'{tmp_path}/text.mov (not a video that can be read)' in message
    assert f'{tmp_path}/cut.avi (ends after ' in message
    out = tmp_path / 'out'
    assert sorted(path.name for path in (out / 'videos').iterdir()) == ['clip.mp4', 'cut.mp4']
    assert len(read_video(out / 'videos' / 'clip.mp4')[0]) == FRAMES
    assert (out / 'results' / '00.png').exists()


def test_recursive_glob(small_data):
    found = find_inputs([str(small_data / 'images' / '**' / '0[45].jpg')])
    assert found == [small_data / 'images' / 'training' / name for name in ('04.jpg', '05.jpg')]


def test_inputs_given_twice_are_taken_once(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('b.jpg', 'a.jpg'):
        (tmp_path / name).touch()
    (tmp_path / 'link.jpg').symlink_to('a.jpg')
    clip = os.path.relpath(video)
    entries = ['b.jpg', str(tmp_path), './a.jpg', f'../{tmp_path.name}/a*.jpg', clip, str(video)]
    expected = [Path('b.jpg'), tmp_path / 'a.jpg', tmp_path / 'link.jpg', Video(Path(clip))]
    assert find_inputs(entries) == expected


def test_glob_without_a_match(mistake, tmp_path):
    assert mistake(tmp_path / '*.jpg') == f'no file matches {tmp_path}/*.jpg'


def test_file_with_the_letters_of_a_glob(video, tmp_path):
    path = video.rename(tmp_path / 'clip [1].mp4')
    assert find_inputs([str(path)]) == [Video(path)]


def test_file_with_the_number_of_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '0').touch()
    assert find_inputs(['0']) == [Path('0')]


class Camera:
    """Replaces ``cv2.VideoCapture`` and yields a few gray images."""

    frames = 4

    def __init__(self, source):
        assert source == 0
        self.read_frames = 0

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return True

    def read(self):
        self.read_frames += 1
        if self.read_frames > self.frames:
            return False, None
        return True, np.full((96, 128, 3), 10 * self.read_frames, np.uint8)

    def release(self):
        self.frames = 0


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr('nat_mm.inference.video.cv2.VideoCapture', Camera)


def test_camera(run, camera, monkeypatch):
    out = run('0', '--max-frames', '3', '--score-threshold', '0', task='detection')
    monkeypatch.undo()
    images, fps = read_video(out / 'videos' / 'camera0.mp4')
    assert (len(images), fps) == (3, 25)
    frame = json.loads((out / 'results' / 'camera0' / '000002.json').read_text())
    assert (frame['image'], frame['frame']) == ('camera0', 2)


def test_camera_that_stops(mistake, camera, tmp_path):
    assert mistake('0') == '1 of 1 inputs cannot be used: camera 0 (stopped after 4 frames)'
    assert len(list((tmp_path / 'out' / 'results' / 'camera0').iterdir())) == 4


def test_earlier_recording_of_a_camera_is_kept(mistake, camera, tmp_path):
    recording = tmp_path / 'out' / 'videos' / 'camera0.mp4'
    recording.parent.mkdir(parents=True)
    recording.touch()
    assert mistake('0') == f'{recording} exists: choose another --out-dir'


def test_camera_that_is_not_available(mistake, capfd):
    assert mistake('99').startswith('camera 99 is not available: ')
    assert capfd.readouterr().err == ''


def test_camera_among_other_inputs(mistake, video):
    assert mistake('0', video) == 'camera 0 must be the only input, as it has no end'


def test_out_dir_that_is_a_file(mistake, video, tmp_path):
    (tmp_path / 'out').touch()
    assert mistake(video).endswith(f'{tmp_path}/out is a file, not a folder')


def test_video_that_would_be_overwritten(mistake, tmp_path):
    (tmp_path / 'out' / 'videos').mkdir(parents=True)
    assert 'would overwrite an input' in mistake(write_video(tmp_path / 'out/videos/clip.mp4'))


def test_images_that_would_be_replaced_by_those_of_a_video(mistake, video, tmp_path):
    folder = tmp_path / 'out' / 'results' / 'clip'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / '1.png'), np.zeros((9, 9, 3), np.uint8))
    assert 'would overwrite an input' in mistake(folder / '1.png', video)


@pytest.mark.parametrize(('option', 'value'), [('--max-frames', '0'), ('--fps', '0.5')])
def test_option_out_of_range(option, value, mistake, video):
    assert f'{option} must be' in mistake(video, option, value)


def check_interrupted(out, count):
    """Checks that the results of a video's first images are complete and nothing else is left."""
    assert len(read_video(out / 'videos' / 'clip.mp4')[0]) == count
    names = sorted(path.stem for path in (out / 'results' / 'clip').iterdir())
    assert names == [f'{number:06d}' for number in range(count)]
    assert not list(out.rglob('.unfinished*'))


def test_interrupt_while_predicting(run, video, monkeypatch, tmp_path, capsys):
    infer, calls = Model.infer, []

    def interrupted_infer(model, images):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return infer(model, images)

    monkeypatch.setattr(Model, 'infer', interrupted_infer)
    with pytest.raises(SystemExit) as raised:
        run(video, '--score-threshold', '0', task='detection')
    assert raised.value.code == 130
    check_interrupted(tmp_path / 'out', 2)
    images = COCO(str(tmp_path / 'out' / 'coco' / 'images.json'))
    results = images.loadRes(str(tmp_path / 'out' / 'coco' / 'results.json'))
    assert set(results.getImgIds()) == {1, 2}
    captured = capsys.readouterr()
    assert 'results of 2 images are in' in captured.out
    assert re.search(r'2/4 [0-9.]+ images/s [0-9:]+ left: ', captured.out)
    assert captured.err == 'interrupted before the end\n'


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_signal_while_results_are_written(task, run, video, monkeypatch, tmp_path):
    """The image being written is still finished, in the video and in the data."""
    write = ResultFiles.write

    def interrupted_write(files, result):
        if result.frame.number == 1:
            signal.raise_signal(signal.SIGINT)
        write(files, result)

    monkeypatch.setattr(ResultFiles, 'write', interrupted_write)
    with pytest.raises(SystemExit):
        run(video, task=task)
    check_interrupted(tmp_path / 'out', 2)
    if task == 'detection':
        written = json.loads((tmp_path / 'out' / 'coco' / 'images.json').read_text())
        assert len(written['images']) == 2


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_command(number, configs, trained, tmp_path, environment):
    video = write_video(tmp_path / 'clip.mp4', frames=1000)
    out = tmp_path / 'out'
    process = ForkedPython(
        [
            *(sys.executable, ROOT / 'tools' / 'predict.py', configs['segmentation']),
            *(trained['segmentation'], video, '--out-dir', out),
        ],
        env=environment,
    )
    while process.poll() is None and not (out / 'results' / 'clip' / '000002.png').exists():
        time.sleep(0.05)
    process.send_signal(number)
    output = process.stdout.read()
    assert process.wait() == 128 + number, output
    assert 'Traceback' not in output
    count = len(list((out / 'results' / 'clip').iterdir()))
    assert 3 <= count < 1000
    check_interrupted(out, count)
