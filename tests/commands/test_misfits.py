"""Tests that commands explain why a model whose parts do not fit together cannot run."""

import pytest

from nat_mm.commands.misfits import misfits_explained
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError
from tests.loading import load_command

WRONG = 'model.decode_head.in_index=[0,1,2,4]'


@pytest.mark.parametrize('name', ['predict', 'test', 'export'])
def test_commands(name, configs, trained, small_data, tmp_path):
    model = [str(configs['segmentation']), str(trained['segmentation'])]
    images = str(small_data / 'images' / 'validation')
    rest = {
        'predict': [images, '--out-dir', str(tmp_path)],
        'test': ['--work-dir', str(tmp_path)],
        'export': [str(tmp_path / 'model.onnx')],
    }
    with pytest.raises(UserError) as raised:
        load_command(name).main([*model, *rest[name], '--cfg-options', WRONG])
    expected = f'{model[0]}: model.decode_head.in_index is [0, 1, 2, 4], but model.backbone gives 4'
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize('error', [KeyError('x'), UserError('x')], ids=['another', 'the user'])
def test_other_errors_propagate(error, configs):
    with (
        pytest.raises(type(error)) as raised,
        misfits_explained(load_config(str(configs['segmentation']))),
    ):
        raise error
    assert raised.value is error
