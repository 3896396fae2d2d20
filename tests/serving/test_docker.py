"""Tests what can be checked of docker/ without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / 'docker' / 'Dockerfile'


def test_hadolint_has_nothing_to_say():
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    hadolint = shutil.which('hadolint', path=beside)
    if hadolint is None:
        pytest.skip('hadolint is not installed')
    result = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, '')


def test_what_is_installed_is_what_pyproject_offers():
    text = DOCKERFILE.read_text()
    with (ROOT / 'pyproject.toml').open('rb') as file:
        offered = tomllib.load(file)['project']['optional-dependencies']
    (extras,) = re.findall(r'"nat_mm\[(.*)\]"', text)
    assert set(extras.split(',')) <= set(offered)
    assert {'serve', 'lite', 'det', 'seg', 'classification', 'tile'} <= set(extras.split(','))


def test_pytorch_is_the_one_that_the_suite_runs_with():
    text, makefile = DOCKERFILE.read_text(), (ROOT / 'Makefile').read_text()
    (torch,) = re.findall(r'^ARG TORCH=(\S+)', text, flags=re.MULTILINE)
    (torchvision,) = re.findall(r'^ARG TORCHVISION=(\S+)', text, flags=re.MULTILINE)
    assert f'TORCH ?= {torch}\n' in makefile
    assert f'TORCHVISION ?= {torchvision}\n' in makefile


@pytest.mark.parametrize(('command', 'healthy'), [('serve', False), ('train', True)])
def test_only_serve_is_unhealthy_without_an_answer(tmp_path, command, healthy):
    (words,) = re.findall(
        r'^HEALTHCHECK .*\\\n *CMD (\[.*\])$', DOCKERFILE.read_text(), re.MULTILINE
    )
    _, option, code = json.loads(words)  # python -c CODE
    # In a container, process 1 is the command, and nothing else uses the port.
    (tmp_path / 'cmdline').write_bytes(f'nat-mm\0{command}\0a.py\0'.encode())
    code = code.replace('/proc/1/cmdline', str(tmp_path / 'cmdline')).replace(':8000', ':9')
    result = subprocess.run([sys.executable, option, code], capture_output=True, text=True)
    assert (result.returncode == 0) == healthy
    assert ('refused' in result.stderr) != healthy
