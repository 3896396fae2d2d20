"""Tests tools/export.py: what onnxruntime computes and what is refused."""

import functools
import re
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmengine.registry import MODELS

from nat_mm.checkpoints.published import asks_mirrors_first
from nat_mm.commands.running import run_command
from nat_mm.config.reading import load_config
from nat_mm.errors import CheckpointError
from nat_mm.export import backbone as backbone_export
from nat_mm.export.verification import generated_images
from tests.export.models import build_segmentor
from tests.loading import load_command

# Images of sizes that neither the export nor its own check uses.
SHAPES = [(1, 32, 32), (3, 75, 33), (1, 128, 96)]

SMALL = {'depths': [1, 1], 'num_heads': [1, 2], 'out_indices': [0, 1]}
# DiNAT's second stage has no dilation, like all of NAT.
FAMILIES = {
    'DiNAT': {'type': 'DiNAT', 'dilations': [[3], [1]]},
    'DiNAT_s': {'type': 'DiNAT_s', 'dilations': [[3], [2]]},
}


def overrides(values):
    """Returns options of the command that set values of the backbone."""
    pairs = (f'model.backbone.{key}={value}'.replace(' ', '') for key, value in values.items())
    return ['--cfg-options', *pairs]


@pytest.fixture(scope='session')
def export():
    """``main`` of tools/export.py for a backbone."""
    main = load_command('export').main
    return lambda arguments: main([*arguments, '--part', 'backbone'])


@pytest.fixture
def refused(export, capsys):
    """Runs an export that must be refused and returns the message."""

    def run(*arguments):
        with pytest.raises(SystemExit) as raised:
            run_command(lambda: export([str(argument) for argument in arguments]))
        assert raised.value.code == 2
        (line,) = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')
        ]
        return line

    return run


@pytest.fixture(scope='module')
def exported(export, configs, tmp_path_factory):
    """Exports a backbone of a family, only once because tracing takes seconds.

    Returns:
        The backbone, the arguments of the command without OUT, and OUT.
    """

    @functools.cache
    def run(family):
        values = {**SMALL, **FAMILIES[family]}
        folder = tmp_path_factory.mktemp(family)
        target, weights = folder / 'backbone.onnx', folder / 'backbone.pth'
        config = load_config(
            str(configs['detection']),
            overrides={f'model.backbone.{key}': value for key, value in values.items()},
        )
        backbone = MODELS.build(config.model.backbone).eval()
        torch.save(backbone.state_dict(), weights)
        given, options = [str(configs['detection']), str(weights)], overrides(values)
        export([*given, str(target), *options])
        return backbone, (given, options), target

    return run


@pytest.mark.parametrize('family', FAMILIES)
def test_onnxruntime_computes_the_features(exported, family):
    """The features match for images of any size, even where maps are smaller than a window."""
    backbone, _, target = exported(family)
    assert [path.name for path in target.parent.glob('*.onnx*')] == ['backbone.onnx']
    session = onnxruntime.InferenceSession(target, providers=['CPUExecutionProvider'])
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ('image', ['batch', 3, 'height', 'width'])
    assert [output.name for output in session.get_outputs()] == ['features0', 'features1']
    for batch, height, width in SHAPES:
        image = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            expected = backbone(image)
        found = session.run(None, {'image': image.numpy()})
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(other, one.numpy(), atol=1e-4)


def test_nothing_is_left_where_onnxruntime_differs(refused, exported, tmp_path, monkeypatch):
    _, (given, options), written = exported('DiNAT')
    monkeypatch.setattr(backbone_export, 'to_onnx', lambda *_, **__: onnx.load(written))
    monkeypatch.setattr(backbone_export, 'TOLERANCE', 1e-12)
    target = tmp_path / 'backbone.onnx'
    message = refused(*given, target, *options)
    assert f'{target} was not written: on 1 image(s) of 64 x 96' in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('target', 'message'),
    [
        ('backbone.pth', 'OUT must end with .onnx, got '),
        ('caf\udce9.onnx', 'the name must be valid UTF-8'),
        ('nowhere/backbone.onnx', 'the folder of OUT does not exist: '),
        ('old.onnx', '; --force overwrites it'),
    ],
)
def test_wrong_target(refused, configs, tmp_path, target, message):
    (tmp_path / 'old.onnx').write_text('precious')
    assert message in refused(configs['detection'], tmp_path / target)
    assert (tmp_path / 'old.onnx').read_text() == 'precious'


def test_checkpoint_is_kept(refused, configs, tmp_path):
    checkpoint, link = tmp_path / 'weights.onnx', tmp_path / 'link.onnx'
    checkpoint.write_bytes(b'weights')
    link.symlink_to(checkpoint)
    for source in (checkpoint, link):
        message = refused(configs['detection'], source, checkpoint, '--force')
        assert 'would overwrite an input' in message
    assert checkpoint.read_bytes() == b'weights'


def test_missing_packages(refused, configs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    message = refused(configs['detection'], tmp_path / 'backbone.onnx')
    assert "onnxruntime is not installed: pip install 'nat_mm[onnx]'" in message


def test_missing_checkpoint(refused, configs, tmp_path):
    message = refused(configs['detection'], 'gone.pth', tmp_path / 'backbone.onnx')
    assert 'gone.pth can not be found' in message


def test_weights_from_the_mirror_first(refused, configs, tmp_path, monkeypatch):
    asked = []

    def load(*_):
        asked.append(asks_mirrors_first())
        raise CheckpointError('not downloaded')

    monkeypatch.setattr('nat_mm.commands.export.load_pretrained', load)
    for options in ([], ['--mirror']):
        refused(configs['detection'], 'https://host/nat.pth', tmp_path / 'out.onnx', *options)
    assert asked == [False, True]


def test_checkpoint_of_another_architecture(refused, configs, trained, tmp_path):
    message = refused(
        *(configs['detection'], trained['detection'], tmp_path / 'backbone.onnx'),
        *overrides({'depths': [2, 1, 1, 1]}),
    )
    assert 'has another architecture' in message
    assert list(tmp_path.iterdir()) == []


def test_another_backbone(refused, configs, tmp_path):
    config = tmp_path / 'swin.py'
    config.write_text(
        "default_scope = 'mmdet'\nmodel = dict(backbone=dict(type='FeaturePyramid'))\n"
    )
    MODELS.register_module(name='FeaturePyramid', module=torch.nn.Identity, force=True)
    message = refused(config, tmp_path / 'backbone.onnx')
    assert 'the backbone must be a NAT, DiNAT or DiNAT_s, got FeaturePyramid' in message


def test_a_segmentor(tmp_path, capsys):
    """The whole model is exported in int8, and the command reports it."""
    model = build_segmentor()
    config, weights, out = (tmp_path / name for name in ('small.py', 'small.pth', 'small.onnx'))
    model.config.dump(config)
    torch.save({'state_dict': model.module.state_dict(), 'meta': {}}, weights)
    (tmp_path / 'images').mkdir()
    for index, image in enumerate(generated_images(((64, 96), (75, 64)))):
        cv2.imwrite(str(tmp_path / f'images/{index}.png'), image)
    arguments = [config, weights, out, '--int8', tmp_path / 'images']
    load_command('export').main([str(each) for each in arguments])
    printed = capsys.readouterr().out
    assert re.search(
        r'small\.onnx: EncoderDecoder, opset 18, image -> labels, scores; onnxruntime agrees with '
        r'PyTorch on (99\.\d+|100\.00)% of the pixels, '
        r'and with \d+ layers in int8 on [5-9]\d\.\d+%',
        printed,
    )
    assert sorted(each.name for each in tmp_path.glob('*.onnx')) == ['small.onnx']
    nodes = {node.op_type for node in onnx.load(out).graph.node}
    assert {'Conv', 'QuantizeLinear'} < nodes
    session = onnxruntime.InferenceSession(out)
    labels, scores = session.run(None, {'image': np.zeros((3, 3, 50, 70), np.float32)})
    assert labels.shape == scores.shape == (3, 50, 70)


def test_options_of_the_whole_model_with_a_backbone(refused, configs, tmp_path):
    message = refused(configs['detection'], tmp_path / 'backbone.onnx', '--preprocess')
    assert '--preprocess needs --part model' in message
