"""The configs and commands that the README shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
CONFIGS = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
LINKS = re.findall(r'\]\(((?!https?:)[^)#]+)\)', README)
SCRIPTS = sorted(set(re.findall(r'tools/\w+\.(?:py|sh)', README)))


@pytest.mark.parametrize('text', CONFIGS, ids=lambda text: re.search(r"'(.*?)'", text).group(1))
def test_configs_build(text, tmp_path):
    path = tmp_path / 'my_config.py'
    path.write_text(text)
    config = Config.fromfile(path)
    config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    assert type(model.backbone).__name__ == 'NAT'


@pytest.mark.parametrize('link', LINKS)
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize('script', [script for script in SCRIPTS if script.endswith('.py')])
def test_options_of_the_commands_exist(script):
    command = [sys.executable, ROOT / script, '--help']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [line for line in README.splitlines() if line.startswith(f'python {script}')]
    assert lines
    for option in re.findall(r'--[\w-]+', ' '.join(lines)):
        assert option in result.stdout
