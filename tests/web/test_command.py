"""Tests tools/web_demo.py: which models it serves where, and what it refuses."""

import shutil

import pytest

from nat_mm.errors import UserError
from nat_mm.web.server import serve
from tests.loading import load_command


@pytest.fixture(scope='module')
def tool():
    return load_command('web_demo')


def test_only_this_computer_is_served_by_default(tool):
    assert tool.parse_arguments([]).host == '127.0.0.1'


def test_models_of_the_demo(tool, sources, tmp_path):
    (tmp_path / 'segmentor').mkdir()
    checkpoint = tmp_path / 'segmentor' / 'iter_1000.pth'
    shutil.copy(sources['segmentor'][1], checkpoint)
    (tmp_path / 'segmentor' / 'last_checkpoint').write_text(str(checkpoint))
    models = tool.load_models(tool.parse_arguments(['--work-dir', str(tmp_path)]))
    assert list(models) == ['upernet_nat_demo']


def test_models_of_one_config_have_names_of_their_own(tool, sources):
    options = [*('--model', *sources['segmentor'])] * 2
    models = tool.load_models(tool.parse_arguments(options))
    assert list(models) == [
        '1: upernet_nat_demo, segmentor',
        '2: upernet_nat_demo, segmentor',
    ]


def test_config_whose_name_is_not_utf8(tool, sources, tmp_path):
    source, checkpoint = sources['segmentor']
    config = tmp_path / 'caf\udce9.py'
    config.write_text(f"_base_ = '{source}'\n")
    models = tool.load_models(tool.parse_arguments(['--model', str(config), str(checkpoint)]))
    assert list(models) == [r'caf\udce9']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--work-dir', 'nowhere'], 'no trained model of the demo in nowhere: .* make demo'),
        (['--model', 'gone.py', 'gone.pth'], 'checkpoint not found: gone.pth'),
        (['--port', '0'], '--port must be from 1 to 65535, got 0'),
        (['--device', 'gpu'], '--device gpu is unknown or not available'),
    ],
    ids=['no demo', 'no model', 'port', 'device'],
)
def test_mistake(options, message, tool):
    with pytest.raises(UserError, match=message):
        tool.main(options)


def test_port_in_use(server, port, models, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', '')
    with (
        pytest.raises(UserError, match=f'cannot listen on 127.0.0.1, port {port}'),
        serve(models, host='127.0.0.1', port=port),
    ):
        pass
