"""Tests that tools/train.py says in one line what is wrong with its input."""

import json

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from nat_mm.config.reading import load_config
from nat_mm.errors import UserError


@pytest.fixture
def mistake(train, configs, tmp_path):
    """Starts a training run that must be refused without a trace, and returns the message."""

    def run(*options, task='detection', arguments=(), config=None):
        config = str(config or configs[task])
        overrides = ['--cfg-options', *options] if options else []
        with pytest.raises(UserError) as raised:
            train([config, '--work-dir', str(tmp_path / 'work_dir'), *arguments, *overrides])
        assert not (tmp_path / 'work_dir').exists()
        return str(raised.value)

    return run


def test_missing_config(mistake):
    assert mistake(config='no/such/config.py') == 'config not found: no/such/config.py'


def test_config_that_is_not_python(mistake, tmp_path):
    config = tmp_path / 'broken.py'
    config.write_text('model = dict(\n')
    assert mistake(config=config).startswith(f'cannot read config {config}: SyntaxError')


def test_config_with_a_fault(mistake, tmp_path):
    config = tmp_path / 'faulty.py'
    config.write_text('a = 1\nb = a / 0\n')
    expected = f'cannot read config {config}, line 2: ZeroDivisionError: division by zero'
    assert mistake(config=config) == expected


def test_config_of_no_framework(mistake, tmp_path):
    config = tmp_path / 'other.py'
    config.write_text('model = dict()\n')
    scopes = "('mmdet', 'mmseg', 'mmpretrain')"
    assert f'default_scope must be one of {scopes}, got None' in mistake(config=config)


def test_config_for_tests_alone(mistake, tmp_path):
    """Models of words for classes, such as SCLIP's, have nothing to train."""
    config = tmp_path / 'test.py'
    config.write_text("default_scope = 'mmseg'\nmodel = dict(type='EncoderDecoder')\n")
    assert 'has no train_dataloader, so there is nothing to train' in mistake(config=config)


def test_config_with_an_import_that_fails(mistake, tmp_path):
    config = tmp_path / 'imports.py'
    imports = "custom_imports = dict(imports=['no_such_module'])"
    config.write_text(f"default_scope = 'mmdet'\n{imports}\n")
    assert "No module named 'no_such_module'" in mistake(config=config)


@pytest.mark.parametrize('imports', ["'nat_mm'", 'dict(imports=5)', "dict(packages=['nat_mm'])"])
def test_imports_of_another_form(imports, mistake, tmp_path):
    config = tmp_path / 'imports.py'
    config.write_text(f"default_scope = 'mmdet'\ncustom_imports = {imports}\n")
    assert "custom_imports must be like dict(imports=['my_package'])" in mistake(config=config)


def test_fault_of_a_module_that_is_imported(tmp_path, monkeypatch):
    (tmp_path / 'faulty_module.py').write_text('len(5)\n')
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / 'imports.py'
    imports = "custom_imports = dict(imports=['faulty_module'])"
    config.write_text(f"default_scope = 'mmdet'\n{imports}\n")
    with pytest.raises(TypeError, match='has no len'):
        load_config(config)


def test_no_imports(tmp_path):
    config = tmp_path / 'imports.py'
    config.write_text("default_scope = 'mmdet'\ncustom_imports = None\n")
    assert load_config(config).custom_imports is None


def test_misspelt_backbone_argument(mistake):
    message = mistake('model.backbone.kernal_size=3')
    assert message.endswith('model.backbone.kernal_size is not an argument of NAT')


def test_misspelt_argument_of_a_head_that_hands_it_on(mistake):
    message = mistake('model.roi_head.bbox_head.num_clases=3')
    expected = 'model.roi_head.bbox_head.num_clases is not an argument of Shared2FCBBoxHead'
    assert message.endswith(expected)


def test_wrong_backbone_value(mistake):
    assert 'kernel_size must be' in mistake('model.backbone.kernel_size=4')


def test_unknown_backbone(mistake):
    assert 'NATT is not in the' in mistake('model.backbone.type=NATT')


def test_misspelt_optimizer_argument(mistake):
    message = mistake('optim_wrapper.optimizer.weight_decai=0.1')
    assert message.endswith('optim_wrapper.optimizer.weight_decai is not an argument of AdamW')


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('optim_wrapper.optimizer.type=Adamw', 'None is not a callable object'),
        ('optim_wrapper.clip_grad=5', 'optim_wrapper.clip_grad is 5: If `clip_grad` is not None'),
        ('param_scheduler.0.type=CosineAnealingLR', 'CosineAnealingLR is not in the'),
        ('param_scheduler.0.start_factor=5', 'param_scheduler.0: Starting multiplicative factor'),
        ('param_scheduler=5', '`param_scheduler` should be a'),
        ('model.neck.init_cfg.type=pretrained', 'pretrained is not in the'),
        ('model.backbone.out_indices=3', 'model.backbone: out_indices must be a list'),
        ('model.backbone.depths=3', 'model.backbone: depths must be a list of one int'),
        ('model.backbone.kernel_size=7.0', 'model.backbone: kernel_size must be an int'),
        ('custom_hooks=[EMAHook]', 'hook should be an instance of Hook or dict, but got EMAHook'),
        ('custom_hooks=5', "'int' object is not iterable"),
        ('default_hooks.foo=1', 'hook should be an instance of Hook or dict, but got 1'),
        (
            'default_hooks.checkpoint.save_best=auto default_hooks.checkpoint.rule=foo',
            'rule must be greater, less or None',
        ),
        ('randomness.seed=abc', 'Cannot cast scalar'),
        ('randomness.foo=1', "unexpected keyword argument 'foo'"),
        ('train_cfg.max_epochs=1.5', 'max_epochs must be a whole number of at least 1, got 1.5'),
    ],
)
def test_wrong_values_while_everything_is_built(option, text, mistake):
    assert text in mistake(*option.split(), arguments=['--no-check'])


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('decode_head.channels=0', 'model.decode_head.channels is 0: Given groups=1, expected'),
        ('decode_head.channels=-4', 'model.decode_head.channels is -4: Trying to create tensor'),
        ('decode_head.pool_scales=[0]', 'model.decode_head.pool_scales is [0]: '),
        ('decode_head.align_corners=abc', "model.decode_head.align_corners is 'abc': "),
        (
            'decode_head.loss_decode.loss_weight=abc',
            "model.decode_head.loss_decode.loss_weight is 'abc': only integer tensors",
        ),
        ('auxiliary_head.kernel_size=0', 'model.auxiliary_head.kernel_size is 0: '),
        ('data_preprocessor=None', 'model.backbone: the backbone takes images [B, 3, H, W]'),
        ('data_preprocessor.mean=[1,2]', 'model.data_preprocessor.mean is [1, 2]: '),
    ],
)
def test_wrong_values_of_a_model(option, text, mistake):
    """Most are noticed only in the first iteration."""
    message = mistake(f'model.{option}', task='segmentation', arguments=['--no-check'])
    assert message.partition('.py: ')[2].startswith(text)


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('model.test_cfg=None', "model.test_cfg is None: 'NoneType' object has no attribute 'get'"),
        (
            'model.test_cfg.mode=slide',
            "model.test_cfg is {'mode': 'slide'}: 'ConfigDict' object has no attribute 'stride'",
        ),
    ],
)
def test_wrong_values_that_are_used_first_in_validation(option, text, train, configs, tmp_path):
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--no-check']
    length = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    with pytest.raises(UserError) as raised:
        train([*arguments, '--cfg-options', option, *length])
    assert str(raised.value).partition('.py: ')[2].startswith(text)
    assert (tmp_path / 'iter_1.pth').exists()


def test_a_mistake_leaves_an_earlier_run_as_it_was(train, configs, tmp_path):
    names = {'.training.lock', 'epoch_1.pth', configs['detection'].name, '20250101_000000/run.log'}
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    options = ['--cfg-options', 'train_dataloader.batch_size=0']
    with pytest.raises(UserError, match='train_dataloader.batch_sampler: batch_size should be'):
        train([str(configs['detection']), '--work-dir', str(tmp_path), *options])
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    assert left == names
    assert all((tmp_path / name).read_text() == name for name in names)


@pytest.mark.parametrize('arguments', [[], ['--no-check']], ids=['checked', 'unchecked'])
def test_images_that_do_not_fill_a_batch(arguments, mistake):
    loader = 'train_dataloader'
    message = mistake(f'{loader}.drop_last=True', f'{loader}.batch_size=99', arguments=arguments)
    assert message.startswith(f'{loader}.drop_last is True, but the dataset has only 6 images for')


def test_pipeline_without_transforms(mistake):
    message = mistake('train_dataloader.dataset.pipeline=[]')
    assert message.startswith('train_dataloader.dataset.pipeline is empty, so that no image')


def test_override_that_does_not_fit_the_config(mistake):
    assert '--cfg-options' in mistake('param_scheduler.7.end=3')


def test_override_without_value(train, configs, capsys):
    with pytest.raises(SystemExit) as raised:
        train([str(configs['detection']), '--cfg-options', 'model'])
    assert raised.value.code == 2
    assert '--cfg-options needs pairs such as' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        pytest.param('no json', 'is not JSON', id='text'),
        pytest.param('[]', 'it holds a list, not an object', id='list'),
        pytest.param('{"images": []}', "it has no list 'annotations'", id='without annotations'),
        pytest.param(
            '{"images": [], "annotations": [1], "categories": []}',
            "an entry of 'annotations' is 1, not an object",
            id='annotations that are numbers',
        ),
        pytest.param(
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "an entry of 'images' has no file_name, height, width",
            id='images without size',
        ),
        pytest.param(
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}',
            "has the categories ['cat'], but the classes of the config are ['box', 'disc']",
            id='other classes',
        ),
    ],
)
def test_annotations_that_are_not_coco(content, expected, mistake, tmp_path):
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(content)
    message = mistake(f'train_dataloader.dataset.ann_file={annotations}')
    assert f'annotation file {annotations} ' in message
    assert expected in message


def test_annotations_without_objects(mistake, small_data, tmp_path):
    content = json.loads((small_data / 'coco' / 'training.json').read_text())
    annotations = tmp_path / 'annotations.json'
    annotations.write_text(json.dumps({**content, 'annotations': []}))
    message = mistake(f'train_dataloader.dataset.ann_file={annotations}')
    assert message == 'the train dataset has no image with annotations of its classes'


def test_evaluator_without_annotations(mistake):
    message = mistake('val_evaluator.ann_file=/nowhere.json')
    assert message == 'val_evaluator.ann_file does not exist: /nowhere.json'


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_missing_data_folder(task, mistake, tmp_path):
    message = mistake(f'train_dataloader.dataset.data_root={tmp_path}/nowhere', task=task)
    assert f'does not exist: {tmp_path}/nowhere/' in message


def test_missing_picture(mistake, small_data, tmp_path):
    (tmp_path / 'empty').mkdir()
    message = mistake(f'train_dataloader.dataset.data_prefix.img={tmp_path}/empty')
    expected = f'a file of the train dataset does not exist: {tmp_path}/empty/00.jpg, and 5 more'
    assert message == expected


def test_folder_without_pictures(mistake, tmp_path):
    (tmp_path / 'empty').mkdir()
    prefix = 'train_dataloader.dataset.data_prefix.img_path'
    message = mistake(f'{prefix}={tmp_path}/empty', task='segmentation')
    assert message == 'the train dataset has no image with annotations of its classes'


def test_load_from_missing_file(mistake):
    assert mistake('load_from=gone.pth') == 'checkpoint not found: gone.pth'


def test_load_from_a_number(mistake):
    expected = 'load_from must be the path of a checkpoint or None, got 5'
    assert mistake('load_from=5') == expected


def test_load_from_another_model(mistake, tmp_path):
    torch.save({'state_dict': {'other.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    message = mistake(f'load_from={tmp_path}/other.pth')
    assert "fits the model: it has 'other.weight', the model has 'backbone." in message


def test_resume_from_weights_only(mistake, tmp_path):
    torch.save({'state_dict': {'other.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    message = mistake(arguments=['--resume', str(tmp_path / 'other.pth')])
    assert 'it has no meta, optimizer, param_schedulers, message_hub' in message


def test_resume_from_a_truncated_checkpoint(mistake, trained, tmp_path):
    content = trained['detection'].read_bytes()
    (tmp_path / 'half.pth').write_bytes(content[: len(content) // 2])
    message = mistake(arguments=['--resume', str(tmp_path / 'half.pth')])
    assert f'{tmp_path}/half.pth' in message
    assert 'truncated' in message


@pytest.fixture
def pretrained(configs, tmp_path):
    """Writes a config whose backbone starts from a checkpoint."""

    def write(checkpoint):
        config = tmp_path / 'pretrained.py'
        config.write_text(
            f"_base_ = '{configs['detection']}'\n"
            f"init_cfg = dict(_delete_=True, type='Pretrained', checkpoint='{checkpoint}')\n"
            'model = dict(backbone=dict(init_cfg=init_cfg))\n'
        )
        return config

    return write


def test_pretrained_weights_that_are_missing(mistake, pretrained):
    config = pretrained('gone.pth')
    assert mistake(config=config) == f'{config}: gone.pth can not be found.'


def test_pretrained_weights_without_network(mistake, pretrained):
    message = mistake(config=pretrained('http://127.0.0.1:9/nat.pth'))
    assert message.startswith('cannot download the pretrained weights')
    assert '--cfg-options model.backbone.init_cfg.checkpoint=PATH' in message


def test_weights_of_the_whole_model_without_network(mistake):
    whole = 'model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint=http://127.0.0.1:9/a.pth'
    message = mistake(*whole)
    assert 'a local copy with --cfg-options model.init_cfg.checkpoint=PATH, or' in message
    assert message.endswith('with --cfg-options model.init_cfg=None')


def test_pretrained_weights_of_another_model(mistake, pretrained, tmp_path):
    torch.save({'state_dict': {'other.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    assert 'fits NAT' in mistake(config=pretrained(tmp_path / 'other.pth'))


def test_launcher_without_its_processes(mistake, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    message = mistake(arguments=['--launcher', 'pytorch'])
    assert 'needs the environment variables of torchrun' in message
    assert 'RANK' in message


def test_another_kind_of_runner(mistake):
    message = mistake('runner_type=SprintRunner')
    assert "runner_type must be one of Runner, FlexibleRunner, got 'SprintRunner'" in message


@pytest.mark.parametrize(
    ('option', 'found'),
    [('optim_wrapper.type=ApexOptimWrapper', 'ApexOptimWrapper'), ('optim_wrapper=5', '5')],
)
def test_amp_with_another_optimizer_wrapper(mistake, option, found):
    assert f'has {found}' in mistake(option, arguments=['--amp'])


def test_validation_data_of_a_loop_without_settings(mistake, configs, tmp_path):
    """mmpretrain's schedules have ``val_cfg = dict()``."""
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{configs['detection']}'\nval_cfg = dict(_delete_=True)\n")
    message = mistake('val_dataloader.dataset.ann_file=gone.json', config=config)
    assert 'gone.json' in message


def test_faults_of_the_program_keep_their_traceback(train, configs, tmp_path):
    @MODELS.register_module(force=True)
    class FaultyBackbone(nn.Module):
        def __init__(self, **_):
            super().__init__()
            [].missing_attribute  # noqa: B018

    with pytest.raises(AttributeError, match='missing_attribute'):
        train(
            [
                str(configs['detection']),
                '--work-dir',
                str(tmp_path),
                '--cfg-options',
                'model.backbone.type=FaultyBackbone',
            ]
        )
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_to_resume_from_that_is_missing(mistake):
    """A config that resumes by itself does not hide it."""
    message = mistake('resume=True', arguments=['--resume', 'nowhere.pth'])
    assert message == 'checkpoint not found: nowhere.pth'


def test_automatic_learning_rate_that_is_none(mistake):
    message = mistake('auto_scale_lr=None', arguments=['--auto-scale-lr'])
    assert '--auto-scale-lr needs auto_scale_lr.base_batch_size in' in message
