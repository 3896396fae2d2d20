"""Tests --mirror of the commands that read published weights."""

import socket
from urllib.error import URLError

import cv2
import numpy as np
import pytest

from nat_mm.checkpoints.published import asks_mirrors_first
from nat_mm.errors import UserError
from tests.loading import load_command
from tests.model_zoo import ROOT

URL = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth'
ARGUMENTS = {
    'predict': ['CONFIG', URL, 'image.png'],
    'test': ['CONFIG', URL, '--no-check'],
    'serve': ['CONFIG', URL, '--port', 'PORT'],
    'analyze': ['CONFIG', URL, '--image', 'image.png'],
    'train': ['CONFIG', '--no-check', '--cfg-options', f'load_from={URL}'],
    'visualize_attention': ['CONFIG', URL, 'image.png'],
    'visualize_saliency': ['image.png', '--model', 'nat', 'CONFIG', URL],
    'convert_checkpoint': [URL, 'out.pth'],
}


MESSAGE = f'cannot download .*{URL}.*not downloaded'
CONFIG = str(ROOT / 'configs/demo/upernet_nat_demo.py')


@pytest.fixture
def asked(monkeypatch):
    """The URLs that were to be downloaded, and whether mirrors would be asked first."""
    found = []

    def read(url, *_):
        found.append((url, asks_mirrors_first()))
        raise URLError('not downloaded')

    monkeypatch.setattr('nat_mm.checkpoints.reading._read_url', read)
    return found


@pytest.mark.parametrize('command', ARGUMENTS)
def test_mirror(command, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('image.png', np.zeros((32, 32, 3), np.uint8))
    with socket.create_server(('127.0.0.1', 0)) as listener:
        values = {'CONFIG': CONFIG, 'PORT': str(listener.getsockname()[1])}
    arguments = [values.get(each, each) for each in ARGUMENTS[command]]
    for options in ([], ['--mirror']):
        with pytest.raises(UserError, match=MESSAGE):
            load_command(command).main([*options, *arguments])
    assert asked == [(URL, False), (URL, True)]


def test_mirror_of_the_page(asked):
    """Skips the server, which is slow to import."""
    command = load_command('web_demo')
    for options in ([], ['--mirror']):
        arguments = command.parse_arguments([*options, '--model', CONFIG, URL])
        with pytest.raises(UserError, match=MESSAGE):
            command.load_models(arguments)
    assert asked == [(URL, False), (URL, True)]
