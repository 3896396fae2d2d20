"""Tests which exceptions of OpenMMLab are due to a config, and which setting they name."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner

from nat_mm.config.failures import describe_failure, find_place, is_due_to_config
from nat_mm.config.reading import config_mistakes
from nat_mm.errors import UserError

HEAD = {'type': 'mmseg.FCNHead', 'in_channels': 4, 'channels': 8, 'num_classes': 2}


def failing(statement, package='mmseg.models', **names):
    """Makes a function that executes a statement as if it were part of a package."""
    scope = {'__name__': package, 'torch': torch, **names}
    exec(compile(f'def forward(self, inputs):\n    {statement}', '<a package>', 'exec'), scope)
    return scope['forward']


@pytest.fixture
def fail():
    """Raises an exception while a model of a config runs; returns it."""

    def run(forward, cfg=HEAD):
        with config_mistakes(Config({'model': cfg})):
            module = MODELS.build(cfg)
        module.forward = forward.__get__(module)
        del module.in_channels
        with pytest.raises(Exception) as raised:  # noqa: PT011
            module(torch.zeros(1))
        return raised.value

    return run


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (
            {'channels': -4},
            'head.channels is -4: Trying to create tensor with negative dimension -4',
        ),
        ({'channels': 'abc'}, "head.channels is 'abc': not all arguments converted"),
        ({'kernel_size': None}, 'head.kernel_size is None: unsupported operand'),
        ({'norm_cfg': {'type': 'BN', 'foo': 1}}, "head.norm_cfg is {'type': 'BN', 'foo': 1}: "),
    ],
    ids=['negative', 'text', 'None', 'part of a layer'],
)
def test_values_that_no_layer_can_be_built_with(changes, text):
    config = Config({'head': {**HEAD, **changes}})
    with pytest.raises(UserError) as raised, config_mistakes(config):
        MODELS.build(config.head)
    assert str(raised.value).startswith(f'None: {text}')


@pytest.mark.parametrize(
    ('statement', 'package', 'due'),
    [
        ('torch.empty(-1)', 'mmseg.models', True),
        ('None.get', 'mmdet.models', True),
        ('[][3]', 'mmcv.cnn', True),
        ('1 // 0', 'torch.nn', True),
        ('eval("nmss")', 'mmcv.ops', True),
        ('nmss', 'mmcv.ops', False),
        ('self.in_channels', 'mmseg.models', True),
        ('self.heads', 'mmseg.models', False),
        ('torch.empty(-1)', 'users_model', False),
        ('raise ValueError', 'users_model', False),
        ('torch.empty(-1)', 'nat_mm.layers', False),
        ('len(3)', 'nat_mm.layers', False),
        ('raise ValueError', 'nat_mm.layers', True),
        ('torch.removed', 'mmdet.models', False),
        ('raise NotImplementedError', 'mmdet.models', False),
        ('raise ImportError("lvis is not installed: pip install lvis")', 'mmdet.datasets', True),
        ('raise ImportError("no users_module")', 'users_model', False),
        ('import no_such_module', 'mmdet.models', False),
        ('raise RuntimeError("CUDA error: an illegal memory access")', 'torch.nn', False),
        ('raise OSError', 'mmengine.fileio', False),
        ("open('/missing/file')", 'mmdet.datasets', True),
        ("open('/missing/file')", 'my_package', False),
        ("raise OSError(28, 'No space left on device', '/file')", 'mmengine.fileio', False),
        ("raise OSError(24, 'Too many open files', '/file')", 'mmengine.fileio', False),
    ],
)
def test_what_a_config_may_cause(statement, package, due, fail, monkeypatch):
    monkeypatch.setattr('linecache.getline', lambda *_: f'    {statement}\n')
    assert is_due_to_config(fail(failing(statement, package))) is due


@pytest.mark.parametrize(
    ('changes', 'start'),
    [
        ({'in_channels': 5}, 'model: Given groups=1, weight of size [8, 5, 3, 3], '),
        ({'kernel_size': 0}, 'model.kernel_size is 0: '),
        (
            {
                'in_channels': [4, 4],
                'in_index': [0, 1],
                'input_transform': 'resize_concat',
                'align_corners': 'abc',
            },
            "model.align_corners is 'abc': ",
        ),
    ],
    ids=['none', 'zero', 'text'],
)
def test_the_setting_that_fails_in_the_first_pass_is_named(changes, start):
    cfg = {**HEAD, **changes}
    with config_mistakes(Config({'model': cfg})):
        head = MODELS.build(cfg)
    with pytest.raises((RuntimeError, TypeError)) as raised:
        head([torch.zeros(1, 4, 8, 6), torch.zeros(1, 4, 4, 3)])
    assert is_due_to_config(raised.value)
    assert describe_failure({'model': cfg}, raised.value).startswith(start)


def test_of_parts_of_one_type_the_one_with_all_keys_is_found():
    config = {'val': {'type': 'Metric'}, 'test': {'type': 'Metric', 'numbers': 5}}
    assert find_place(config, {'type': 'Metric', 'numbers': 5, 'prefix': 'a'}) == 'test'
    assert find_place(config, {'type': 'Metric'}) == 'val'
    assert find_place({**config, 'val': config['test']}, config['test']) is None


def test_what_mmengine_raises_for_a_hook():
    cfg = {'type': 'CheckpointHook', 'interval': None}
    with config_mistakes(Config()):
        hook = HOOKS.build(cfg)
    runner = SimpleNamespace(_hooks=[Hook(), hook], epoch=0)
    with pytest.raises(TypeError, match='CheckpointHook object at') as raised:
        Runner.call_hook(runner, 'after_train_epoch')
    assert is_due_to_config(raised.value)
    text = describe_failure({'default_hooks': {'checkpoint': cfg}}, raised.value)
    assert text.startswith("default_hooks.checkpoint.interval is None: '>' not supported")
    assert 'object at' not in text
