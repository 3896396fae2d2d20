"""Tests loading pretrained backbones: what fits, what is reported, what is refused."""

import logging
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from nat_mm.backbones import NAT
from nat_mm.checkpoints import load_pretrained, loading
from nat_mm.errors import PretrainedError
from nat_mm.layers.rpb import resize_rpb

SMALL = {
    'embed_dim': 16,
    'depths': (2, 1, 1, 1),
    'num_heads': (1, 2, 4, 8),
    'kernel_size': 3,
    'mlp_ratio': 1.0,
}


def make_nat(**options):
    return NAT(**{**SMALL, **options})


@pytest.fixture
def log(monkeypatch):
    """The lines that loading logs, as (level, line)."""
    lines = []

    def record(line, logger, level=logging.INFO):
        lines.append((level, line))

    monkeypatch.setattr(loading, 'print_log', record)
    return lines


@pytest.fixture
def classifier():
    """The state dict of a classifier whose trunk is a NAT."""
    state_dict = make_nat(out_indices=(3,)).state_dict()
    for kind in ('weight', 'bias'):
        state_dict[f'norm.{kind}'] = state_dict.pop(f'norm3.{kind}')
    state_dict['head.weight'] = torch.zeros(10, 128)
    state_dict['head.bias'] = torch.zeros(10)
    return state_dict


def assert_loaded(model, state_dict):
    for name, parameter in model.named_parameters():
        if not name.startswith('norm'):
            assert torch.equal(parameter, state_dict[name]), name


@pytest.mark.parametrize('wrap', [None, 'state_dict', 'model'], ids=str)
def test_classifier_checkpoint(classifier, save, log, wrap):
    path = save({wrap: classifier, 'meta': {'epoch': 3}} if wrap else classifier)
    model = make_nat(init_cfg={'type': 'Pretrained', 'checkpoint': path})
    model.init_weights()
    assert_loaded(model, classifier)
    fitting = len(classifier) - 4
    assert log == [(logging.INFO, f'NAT: {fitting} tensors loaded from {path}')]


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone', 'student.backbone.'], ids=str)
def test_detector_checkpoint(save, log, prefix):
    source = make_nat().state_dict()
    stem = (prefix or 'backbone.').rstrip('.') + '.'
    detector = {stem + key: value for key, value in source.items()}
    detector['neck.lateral_convs.0.conv.weight'] = torch.zeros(1)
    path = save({'state_dict': detector})
    init_cfg = {'type': 'Pretrained', 'checkpoint': path}
    if prefix:
        init_cfg['prefix'] = prefix
    model = make_nat(init_cfg=init_cfg)
    model.init_weights()
    assert_loaded(model, source)
    assert torch.equal(model.norm2.weight, source['norm2.weight'])
    assert [level for level, _ in log] == [logging.INFO]


def test_whole_detector_initializes_its_backbone(classifier, save, log):
    from mmengine.model import BaseModule

    class Detector(BaseModule):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = backbone
            self.neck = nn.Conv2d(16, 16, 1)

    path = save(classifier)
    for pretrained_type in ('Pretrained', PretrainedInit):
        detector = Detector(
            make_nat(
                init_cfg=[
                    {'type': pretrained_type, 'checkpoint': path},
                    {'type': 'Constant', 'layer': 'LayerNorm', 'val': 0.5},
                ]
            )
        )
        detector.init_weights()
        assert_loaded(detector.backbone, classifier)
        assert (detector.backbone.norm1.weight == 0.5).all()
        assert detector.backbone.init_cfg[0]['type'] is pretrained_type


@pytest.mark.parametrize('layout', ['classifier', 'detector'])
def test_mmengine_loads_a_backbone(classifier, save, layout):
    detector = {f'backbone.{key}': value for key, value in make_nat().state_dict().items()}
    detector['neck.conv.weight'] = torch.ones(1)
    weights = {'classifier': classifier, 'detector': {'state_dict': detector}}[layout]
    model = make_nat()
    load_checkpoint(model, save(weights))
    source = {key.removeprefix('backbone.'): value for key, value in detector.items()}
    assert_loaded(model, classifier if layout == 'classifier' else source)


def test_backbone_inside_of_another_model_takes_a_classifier(classifier):
    model = nn.ModuleDict({'trunk': make_nat(out_indices=(3,)), 'neck': nn.Linear(2, 2)})
    weights = {f'trunk.{key}': value for key, value in classifier.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (['neck.weight', 'neck.bias'], [])
    assert_loaded(model['trunk'], classifier)
    assert torch.equal(model['trunk'].norm3.weight, classifier['norm.weight'])


def test_weights_of_a_backbone_are_left_as_they_are():
    classifier = make_nat(out_indices=(3,))
    missing, unexpected = make_nat().load_state_dict(classifier.state_dict(), strict=False)
    assert {key.partition('.')[0] for key in missing} == {'norm0', 'norm1', 'norm2'}
    assert unexpected == []


def test_checkpoints_of_other_models_are_left_as_they_are(save):
    swin = {'patch_embed.proj.weight': torch.ones(2), 'layers.0.blocks.0.attn.w_msa': torch.ones(1)}
    assert CheckpointLoader.load_checkpoint(save(swin)).keys() == swin.keys()


def test_without_init_cfg_the_weights_stay():
    model = make_nat()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_report_of_missing_unexpected_and_misshaped_keys(classifier, save, log):
    for block in (0, 1):
        del classifier[f'levels.0.blocks.{block}.mlp.fc1.bias']
    del classifier['patch_embed.norm.bias']
    classifier['levels.0.blocks.1.gamma1'] = torch.ones(16)
    classifier['extra.weight'] = torch.ones(1)
    classifier['levels.1.blocks.0.norm1.weight'] = torch.ones(7)
    path = save(classifier)
    model = make_nat()
    untouched = model.levels[1].blocks[0].norm1.weight.clone()
    report = load_pretrained(model, path)
    assert report.unexpected == ['extra.weight', 'levels.0.blocks.1.gamma1']
    assert 'norm0.weight' in report.missing
    assert torch.equal(model.levels[1].blocks[0].norm1.weight, untouched)
    assert torch.equal(model.levels[2].blocks[0].attn.rpb, classifier['levels.2.blocks.0.attn.rpb'])
    ((level, line),) = log
    assert level == logging.WARNING
    assert line.splitlines() == [
        f'NAT: {len(report.fitting)} tensors loaded from {path}, but it does not fit everywhere',
        '  missing in the checkpoint: levels.0.blocks.{0,1}.mlp.fc1.bias, patch_embed.norm.bias',
        '  unexpected: extra.weight, levels.0.blocks.1.gamma1',
        '  of another shape: levels.1.blocks.0.norm1.weight (checkpoint [7], model [32])',
    ]


def test_other_kernel_size_resizes_the_bias_tables(classifier, save, log):
    model = make_nat(kernel_size=5)
    load_pretrained(model, save(classifier))
    for stage, blocks in enumerate((2, 1, 1, 1)):
        for block in range(blocks):
            expected = resize_rpb(classifier[f'levels.{stage}.blocks.{block}.attn.rpb'], 5)
            torch.testing.assert_close(model.levels[stage].blocks[block].attn.rpb, expected)
    assert [level for level, _ in log] == [logging.INFO]


def test_deeper_model_reports_the_blocks_that_stay_random(classifier, save, log):
    load_pretrained(make_nat(depths=(4, 1, 1, 1)), save(classifier))
    assert 'levels.0.blocks.{2,3}.attn.rpb' in log[0][1]


@pytest.mark.parametrize(
    'foreign',
    [
        {'conv1.weight': torch.zeros(64, 3, 7, 7), 'fc.bias': torch.zeros(1000)},
        NAT(**{**SMALL, 'embed_dim': 24, 'num_heads': (3, 6, 12, 24)}).state_dict(),
        {'norm.weight': torch.zeros(128), 'head.bias': torch.zeros(10)},
    ],
    ids=['ResNet', 'NAT of another width', 'head only'],
)
def test_checkpoint_of_which_no_key_fits_is_refused(foreign, save):
    path = save(foreign)
    model = make_nat(init_cfg={'type': 'Pretrained', 'checkpoint': path})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match='no key in .* fits NAT') as caught:
        model.init_weights()
    message = str(caught.value)
    assert path in message
    assert 'patch_embed.proj.0.weight [8, 3, 3, 3]' in message
    first = next(iter(foreign))
    assert f'{first} {list(foreign[first].shape)}' in message or 'has no weights' in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_foreign_keys_are_reported_whatever_their_names(classifier, save, log):
    foreign = {f'a.blocks.{part}.1.weight': torch.ones(1) for part in ('mlp', 'attn')}
    load_pretrained(make_nat(), save({**classifier, **foreign}))
    assert 'unexpected: a.blocks.{mlp,attn}.1.weight' in log[0][1]


def test_prefix_that_no_key_has(classifier, save):
    path = save(classifier)
    with pytest.raises(ValueError, match=r"no key .*\.pth begins with prefix 'trunk\.'"):
        load_pretrained(make_nat(), path, prefix='trunk.')


@pytest.mark.parametrize(
    ('content', 'prefix', 'message'),
    [
        ({'a.weight': torch.ones(1)}, 'trunk.', r"no key in .*\.pth begins with prefix 'trunk\.'"),
        ([1, 2], None, 'checkpoint.pth holds no state dict but a list'),
        ({3: torch.ones(1)}, 'backbone.', 'checkpoint.pth holds no state dict'),
        (None, None, 'absent.pth can not be found'),
    ],
    ids=['prefix', 'list', 'number as key', 'missing'],
)
def test_init_cfg_that_cannot_be_loaded(content, prefix, message, save, tmp_path):
    path = str(tmp_path / 'absent.pth') if content is None else save(content)
    init_cfg = {'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix}
    with pytest.raises(PretrainedError, match=message):
        make_nat(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize(
    'content', [{'epoch': 3}, [1, 2], {'state_dict': {'a': 1}}], ids=['meta', 'list', 'no tensor']
)
def test_file_without_weights(content, save):
    with pytest.raises(ValueError, match='checkpoint.pth holds no state dict'):
        load_pretrained(make_nat(), save(content))


def test_missing_file(tmp_path):
    path = str(tmp_path / 'absent.pth')
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        load_pretrained(make_nat(), path)


@pytest.mark.parametrize('kept', [0, 10, 0.5], ids=['empty', '10 bytes', 'half'])
def test_truncated_file(classifier, save, kept):
    path = save(classifier)
    os.truncate(path, int(os.path.getsize(path) * kept) if isinstance(kept, float) else kept)
    with pytest.raises(ValueError, match=r'checkpoint\.pth .*is truncated, damaged'):
        load_pretrained(make_nat(), path)


class RunsCode:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_checkpoint_with_code_is_refused_and_does_not_run(classifier, save, tmp_path):
    marker = tmp_path / 'ran'
    path = save({'state_dict': classifier, 'trap': RunsCode(str(marker))})
    with pytest.raises(ValueError, match=r'checkpoint\.pth is refused: .*mkdir'):
        load_pretrained(make_nat(), path)
    assert not marker.exists()


def test_misspelt_init_cfg_is_refused(save, classifier):
    init_cfg = {'type': 'Pretrained', 'checkpoint': save(classifier), 'prefx': 'backbone.'}
    with pytest.raises(TypeError, match='prefx'):
        make_nat(init_cfg=init_cfg).init_weights()


def test_url(classifier, save, tmp_path, monkeypatch):
    save(classifier, 'nat_small_model.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        model = make_nat()
        load_pretrained(model, f'http://127.0.0.1:{server.server_port}/nat_small_model.pth')
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert_loaded(model, classifier)


def test_state_dict_round_trip():
    source, target = make_nat(layer_scale=0.1), make_nat(layer_scale=0.1)
    target.load_state_dict(source.state_dict(), strict=True)
    image = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        assert torch.equal(source.eval()(image)[3], target.eval()(image)[3])
