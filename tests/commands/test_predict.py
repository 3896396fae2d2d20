"""Tests tools/predict.py: images and data of the predictions, and what it refuses."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask

from nat_mm.checkpoints import read_checkpoint
from nat_mm.errors import UserError


@pytest.fixture
def pictures(small_data, tmp_path):
    """A folder with two images."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name in ('00.jpg', '01.jpg'):
        shutil.copy(small_data / 'images' / 'validation' / name, folder)
    return folder


@pytest.fixture
def mistake(predict, configs, trained, tmp_path):
    """Runs a prediction that must be refused and returns the message."""

    def run(*arguments, task='segmentation'):
        model = [str(configs[task]), str(trained[task])]
        with pytest.raises(UserError) as raised:
            predict([*model, *map(str, arguments), '--out-dir', str(tmp_path / 'out')])
        return str(raised.value)

    return run


def test_detector(predict, configs, trained, pictures, tmp_path):
    arguments = [str(configs['detection']), str(trained['detection']), str(pictures)]
    options = ['--score-threshold', '0.05', '--batch-size', '2', '--device', 'cpu']
    predict([*arguments, '--out-dir', str(tmp_path / 'out'), *options])
    result = json.loads((tmp_path / 'out' / 'results' / '00.json').read_text())
    assert (result['image'], result['height'], result['width']) == ('00.jpg', 96, 128)
    assert 0 < len(result['instances']) <= 5
    for instance in result['instances']:
        assert instance['class_name'] == ('box', 'disc')[instance['label']]
        assert 0.05 <= instance['score'] <= 1
        left, top, right, bottom = instance['bbox']
        assert 0 <= left <= right <= 128
        assert 0 <= top <= bottom <= 96
        assert mask.decode(instance['mask']).shape == (96, 128)
    drawn = [cv2.imread(str(tmp_path / 'out' / 'images' / name)) for name in ('00.jpg', '01.jpg')]
    assert [picture.shape for picture in drawn] == [(96, 128, 3)] * 2


def test_classes_are_the_configs_where_the_checkpoint_has_none(
    predict, configs, trained, pictures, tmp_path
):
    out = tmp_path / 'out'
    for task in ('detection', 'segmentation'):
        weights = read_checkpoint(str(trained[task]))['state_dict']
        torch.save({'state_dict': weights}, tmp_path / f'{task}.pth')
        model = [str(configs[task]), str(tmp_path / f'{task}.pth')]
        predict([*model, str(pictures / '00.jpg'), '--out-dir', str(out)])
    assert json.loads((out / 'classes.json').read_text()) == [None, 'background', 'box', 'disc']
    instances = json.loads((out / 'results' / '00.json').read_text())['instances']
    assert {instance['class_name'] for instance in instances} <= {'box', 'disc'}
    categories = json.loads((out / 'coco' / 'images.json').read_text())['categories']
    assert [category['name'] for category in categories] == ['box', 'disc']


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_fewer_classes_than_the_model_has(predict, configs, trained, pictures, tmp_path, task):
    content = read_checkpoint(str(trained[task]))
    content['meta']['dataset_meta']['classes'] = ('box',)
    torch.save(content, tmp_path / 'few.pth')
    model = [str(configs[task]), str(tmp_path / 'few.pth')]
    with pytest.raises(UserError, match=r"few\.pth .*1 classes \('box'\), but the model"):
        predict([*model, str(pictures), '--out-dir', str(tmp_path / 'out')])


def test_score_threshold(predict, configs, trained, pictures, tmp_path):
    arguments = [str(configs['detection']), str(trained['detection']), str(pictures / '00.jpg')]
    predict([*arguments, '--out-dir', str(tmp_path / 'out'), '--score-threshold', '1'])
    result = json.loads((tmp_path / 'out' / 'results' / '00.json').read_text())
    assert result['instances'] == []


def test_segmentor(predict, configs, trained, pictures, tmp_path):
    """The images have two sizes, which mmseg cannot put into one batch."""
    image = cv2.imread(str(pictures / '01.jpg'))
    cv2.imwrite(str(pictures / '01.jpg'), image[:80])
    arguments = [str(configs['segmentation']), str(trained['segmentation']), str(pictures)]
    predict([*arguments, '--out-dir', str(tmp_path / 'out'), '--batch-size', '2'])
    out = tmp_path / 'out'
    assert json.loads((out / 'classes.json').read_text()) == [None, 'background', 'box', 'disc']
    for name, height in (('00', 96), ('01', 80)):
        labels = cv2.imread(str(out / 'results' / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (height, 128)
        assert set(np.unique(labels)) <= {1, 2, 3}
        assert cv2.imread(str(out / 'images' / f'{name}.jpg')).shape == (height, 128, 3)


def test_batch_size_does_not_change_results(predict, configs, trained, pictures, tmp_path):
    arguments = [str(configs['segmentation']), str(trained['segmentation']), str(pictures)]
    for size in ('1', '2'):
        predict([*arguments, '--out-dir', str(tmp_path / size), '--batch-size', size])
    for name in ('00.png', '01.png'):
        single, double = (
            cv2.imread(str(tmp_path / size / 'results' / name), cv2.IMREAD_UNCHANGED)
            for size in ('1', '2')
        )
        assert (single != double).mean() < 0.001


def test_input_that_is_no_picture(mistake, tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    message = mistake(tmp_path / 'text.jpg')
    path = tmp_path / 'text.jpg'
    assert message == f'1 of 1 inputs cannot be used: {path} (not an image that can be read)'
    assert not (tmp_path / 'out').exists()


def test_folder_with_a_file_that_is_no_picture(mistake, pictures, tmp_path):
    (pictures / '00broken.jpg').write_bytes(b'')
    message = mistake(pictures)
    assert message.startswith('1 of 3 inputs cannot be used')
    assert '00broken.jpg' in message
    assert {path.name for path in (tmp_path / 'out' / 'results').iterdir()} == {'00.png', '01.png'}


def test_truncated_picture(mistake, pictures):
    content = (pictures / '00.jpg').read_bytes()
    (pictures / '00.jpg').write_bytes(content[:100])
    assert '00.jpg' in mistake(pictures / '00.jpg')


def test_missing_input(mistake):
    assert mistake('gone.jpg') == 'input not found: gone.jpg'


def test_folder_without_pictures(mistake, tmp_path):
    (tmp_path / 'empty').mkdir()
    assert 'no images (.jpg' in mistake(tmp_path / 'empty')


def test_inputs_of_the_same_name(mistake, pictures):
    shutil.copy(pictures / '00.jpg', pictures / '00.png')
    assert 'would both have results named 00' in mistake(pictures)


def test_result_that_would_overwrite_an_input(mistake, pictures, tmp_path):
    (tmp_path / 'out').mkdir()
    inputs = (tmp_path / 'out' / 'images').resolve()
    shutil.copytree(pictures, inputs)
    before = (inputs / '00.jpg').read_bytes()
    assert 'would overwrite an input' in mistake(inputs)
    assert (inputs / '00.jpg').read_bytes() == before


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'meta'])
def test_unknown_device(device, mistake, pictures):
    assert f'--device {device} is unknown or not available' in mistake(pictures, '--device', device)


def test_checkpoint_of_the_other_task(predict, configs, trained, pictures, tmp_path):
    arguments = [str(configs['detection']), str(trained['segmentation']), str(pictures)]
    with pytest.raises(UserError, match='has another architecture than the model'):
        predict([*arguments, '--out-dir', str(tmp_path / 'out')])


def test_opacity(predict, configs, trained, pictures, tmp_path):
    model = [str(configs['segmentation']), str(trained['segmentation'])]
    for opacity in ('0', '1'):
        out = ['--out-dir', str(tmp_path / opacity), '--opacity', opacity]
        predict([*model, str(pictures / '00.jpg'), *out])
    bare, covered = (cv2.imread(str(tmp_path / name / 'images/00.jpg')) for name in '01')
    image = cv2.imread(str(pictures / '00.jpg'))
    assert np.median(abs(bare.astype(int) - image)) <= 2
    assert np.median(abs(covered.astype(int) - image)) > 50


@pytest.mark.parametrize(
    ('option', 'value'),
    [('--batch-size', '0'), ('--score-threshold', '1.5'), ('--opacity', '-1')],
)
def test_option_out_of_range(option, value, mistake, pictures):
    assert f'{option} must be' in mistake(pictures, option, value)
