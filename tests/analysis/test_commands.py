"""Tests the commands that show what models look at."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from nat_mm.analysis import attention_windows
from nat_mm.analysis.prepared_image import prepare_image
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError
from nat_mm.inference.load_model import load_model
from tests.loading import load_command

CONFIG = """
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3),
    backbone=dict({backbone}),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=0, channels=8, num_convs=1, num_classes=2,
        norm_cfg=dict(type='BN')),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(132, 96)),
    dict(type='PackSegInputs')]))
"""
NAT = (
    "type='DiNAT', embed_dim=16, depths=(2, 2), num_heads=(1, 2), kernel_size=3, "
    'dilations=((1, 3), (1, 2)), out_indices=(0, 1)'
)
SWIN = "type='SwinTransformer', embed_dims=16, depths=(2, 2), num_heads=(1, 2), strides=(4, 2), "
SWIN += 'out_indices=(0, 1)'


class Files(NamedTuple):
    folder: Path
    nat: str
    swin: str
    checkpoint: str
    image: str


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Configs of a small DiNAT and a small Swin, a checkpoint of the DiNAT, and an image."""
    folder = tmp_path_factory.mktemp('visualization')
    for name, backbone in (('nat', NAT), ('swin', SWIN)):
        (folder / f'{name}.py').write_text(CONFIG.format(backbone=backbone))
    torch.manual_seed(0)
    model = MODELS.build(load_config(str(folder / 'nat.py')).model)
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / 'nat.pth')
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'street.bmp'), image)
    names = ('nat.py', 'swin.py', 'nat.pth', 'street.bmp')
    return Files(folder, *(str(folder / name) for name in names))


@pytest.fixture(scope='module')
def attention() -> Callable:
    """``main`` of tools/visualize_attention.py."""
    return load_command('visualize_attention').main


@pytest.fixture(scope='module')
def saliency() -> Callable:
    """``main`` of tools/visualize_saliency.py."""
    return load_command('visualize_saliency').main


def test_attention_of_a_checkpoint_is_drawn(files, attention, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(
        'nat_mm.analysis.attention_figure.draw_window',
        lambda image, window, **options: drawn.append((window, options)) or image,
    )
    places = ['--point', '100,12', '--point', '0,89', '--stage', '1', '--block', '0']
    attention(
        [files.nat, files.checkpoint, files.image, '--head', '1', *places]
        + ['--rollout', '--out-dir', str(tmp_path / 'out')]
    )
    assert capsys.readouterr().out.endswith(f'drawings are in {tmp_path}/out\n')
    height, width, _ = cv2.imread(str(tmp_path / 'out' / 'street.png')).shape
    assert width > height > 500

    loaded = load_model(files.nat, files.checkpoint, device='cpu')
    model, config = loaded.module, loaded.config
    prepared = prepare_image(model, config, cv2.imread(files.image))
    assert prepared.scale == pytest.approx((132 / 120, 96 / 90), rel=0.02)
    points = [prepared.to_tensor(point) for point in ((100, 12), (0, 89))]
    expected = attention_windows(
        model.backbone, prepared.tensor, points=points, stage=1, block=0, head=1
    )
    for (window, options), other in zip(drawn, expected, strict=True):
        assert window.token == other.token
        torch.testing.assert_close(window.weights, other.weights)
        assert options == {'scale': (5, 5)}


def test_without_points_the_centre_and_borders_are_shown(files, attention, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        'nat_mm.analysis.attention_figure.draw_window',
        lambda image, window, **options: drawn.append(window) or image,
    )
    attention([files.nat, 'none', files.image, '--out-dir', str(tmp_path)])
    # The default stage is 1, where 3 x 3 windows with dilation 2 span half of 12 x 17 tokens.
    assert [window.layer for window in drawn] == [(1, 1)] * 3
    assert [window.token for window in drawn] == [(6, 8), (6, 0), (11, 16)]


def test_saliency_of_several_models_is_drawn(files, saliency, tmp_path):
    saliency(
        [files.image, '--model', 'DiNAT', files.nat, files.checkpoint]
        + ['--model', 'Swin', files.swin, 'none', '--samples', '2', '--out-dir', str(tmp_path)]
    )
    height, width, _ = cv2.imread(str(tmp_path / 'street.png')).shape
    assert width > 3 * height
    assert width > 1000


def test_configs_of_installed_toolboxes_are_found(tmp_path):
    with pytest.raises(UserError, match=r'config not found: .*mmdet.\.mim.configs.no\.py'):
        load_model('mmdet::no.py', None, device='cpu')
    with pytest.raises(UserError, match="package 'nothing_such' is not installed"):
        load_model('nothing_such::no.py', None, device='cpu')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['--point', '120,0'], r'--point 120,0 must lie in street.bmp, x below 120 and y below 90'),
        (['--stage', '2'], 'street.bmp: stage must be from 0 to 1, got 2'),
        (['--stage', '1', '--block', '5'], 'block of stage 1 must be from 0 to 1, got 5'),
        (['--head', '2'], 'head of stage 1 must be from 0 to 1, got 2'),
        (['--short-side', '31'], 'short_side must be at least 32, got 31'),
        (['--device', 'abacus'], '--device abacus is unknown'),
    ],
    ids=lambda value: value[-2].strip('-') if isinstance(value, list) else '',
)
def test_mistakes_in_options_of_attention(changes, message, files, attention, tmp_path):
    arguments = [files.nat, files.checkpoint, files.image, '--out-dir', str(tmp_path)]
    with pytest.raises(UserError, match=message):
        attention([*arguments, *changes])
    assert list(tmp_path.iterdir()) == []


def test_mistakes_in_files_of_attention(files, attention, tmp_path):
    out = ['--out-dir', str(tmp_path)]
    with pytest.raises(UserError, match='must be NAT, DiNAT or DiNAT_s, .* SwinTransformer'):
        attention([files.swin, 'none', files.image, *out])
    with pytest.raises(UserError, match='checkpoint not found: no.pth'):
        attention([files.nat, 'no.pth', files.image, *out])
    with pytest.raises(UserError, match='input not found: no.jpg'):
        attention([files.nat, 'none', 'no.jpg', *out])
    with pytest.raises(UserError, match='--out-dir'):
        attention([files.nat, 'none', files.image, '--out-dir', files.checkpoint])
    (tmp_path / 'street.png').write_bytes(Path(files.image).read_bytes())
    with pytest.raises(UserError, match='would overwrite an input'):
        attention([files.nat, 'none', str(tmp_path / 'street.png'), *out])


def test_a_point_that_is_none_is_a_usage_mistake(files, attention, capsys):
    with pytest.raises(SystemExit) as error:
        attention([files.nat, 'none', files.image, '--point', '12;3'])
    assert error.value.code == 2
    assert 'a point is x,y in pixels of the image, such as 120,80; got 12;3' in (
        capsys.readouterr().err
    )


def test_broken_images_are_left_out(files, saliency, tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'no image')
    model = ['--model', 'DiNAT', files.nat, 'none']
    with pytest.raises(UserError, match='1 of 2 inputs cannot be used: .*broken.jpg'):
        saliency([str(broken), files.image, *model, '--out-dir', str(tmp_path / 'out')])
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['street.png']


@pytest.fixture(scope='module')
def analyze() -> Callable:
    """``main`` of tools/analyze.py."""
    return load_command('analyze').main


@pytest.fixture(scope='module')
def plain(files) -> str:
    """The config of a small NAT without dilations."""
    backbone = NAT.replace('DiNAT', 'NAT').replace('dilations=((1, 3), (1, 2)), ', '')
    path = files.folder / 'plain.py'
    path.write_text(CONFIG.format(backbone=backbone))
    return str(path)


QUICK = ['--shape', '96', '128', '--seconds', '0.001']


def test_patterns_and_checkpoints_are_compared(files, analyze, plain, tmp_path, capsys):
    other = tmp_path / 'other.pth'
    saved = torch.load(files.checkpoint)
    saved['state_dict']['backbone.levels.0.blocks.0.attn.rpb'] += 1
    torch.save(saved, other)
    out = tmp_path / 'out'
    modes = ['--modes', 'inference', 'training']
    checkpoints = [files.checkpoint, str(other), '--image', files.image]
    analyze([plain, *checkpoints, *modes, *QUICK, '--out-dir', str(out)])
    assert sorted(path.name for path in out.iterdir()) == [
        *('analysis.json', 'equivariance.png', 'receptive_fields.png', 'saliency.png')
    ]
    printed = capsys.readouterr().out
    rows = json.loads((out / 'analysis.json').read_text())
    assert [row['pattern'] for row in rows] == ['neighborhood', 'sasa', 'shifted_window', 'full']
    backbone = load_model(plain, files.checkpoint, device='cpu').module.backbone
    for row in rows:
        assert row['pattern'] in printed
        assert row['parameters'] == sum(each.numel() for each in backbone.parameters())
        assert row['images_per_second'].keys() == {'inference', 'training'}
        assert 0 < row['peak_bytes']['inference'] < row['peak_bytes']['training']
        assert len(row['field_sides']) == 4
    errors = [row['equivariance']['0'] for row in rows]
    assert max(errors[:2]) < 1e-5 < errors[3] < errors[2]
    height, width, _ = cv2.imread(str(out / 'saliency.png')).shape
    assert width > 4 * height  # the image, two maps, the difference


def test_without_checkpoint_and_image_random_ones_are_compared(analyze, plain, tmp_path):
    analyze([plain, '--patterns', 'sasa', 'neighborhood', *QUICK, '--out-dir', str(tmp_path)])
    assert not (tmp_path / 'saliency.png').exists()
    rows = json.loads((tmp_path / 'analysis.json').read_text())
    assert [row['pattern'] for row in rows] == ['sasa', 'neighborhood']
    assert rows[0]['multiply_adds'] == rows[1]['multiply_adds']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['--shape', '95', '224'], '--shape must be 96 96 or more, got 95 224'),
        (['--batch-size', '0'], '--batch-size must be at least 1, got 0'),
        (['--seconds', '0'], '--seconds must be above 0, got 0'),
        (['--device', 'gpu9'], '--device gpu9 is unknown'),
        (['a.pth', 'a.pth'], 'every checkpoint must be another file, got a.pth, a.pth'),
        ([], "attention 'shifted_window' has no dilation.*take the backbone NAT, got 3"),
    ],
    ids=str,
)
def test_mistakes_in_options_of_analyze(changes, message, files, analyze, tmp_path):
    with pytest.raises(UserError, match=message):
        analyze([files.nat, *changes, '--out-dir', str(tmp_path / 'out')])


def test_analyze_writes_no_file_named_like_its_image(files, analyze, tmp_path):
    """It takes one image, which may be in the folder of the results under any other name."""
    shutil.copy(files.image, tmp_path / 'street.png')
    arguments = [files.nat, '--out-dir', str(tmp_path), '--image']
    with pytest.raises(UserError, match="attention 'shifted_window' has no dilation"):
        analyze([*arguments, str(tmp_path / 'street.png')])  # found after the image was read
    shutil.copy(files.image, tmp_path / 'saliency.png')
    with pytest.raises(UserError, match=r'saliency.png would overwrite'):
        analyze([*arguments, str(tmp_path / 'saliency.png')])
    with pytest.raises(UserError, match=r'only one image can be given, got 2 with'):
        analyze([*arguments, str(tmp_path)])


def test_other_backbones_are_refused(files, analyze, tmp_path):
    with pytest.raises(UserError, match=r'swin.py: the backbone must be NAT, .*SwinTransformer'):
        analyze([files.swin, '--out-dir', str(tmp_path)])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['--samples', '0'], '--samples must be at least 1, got 0'),
        (['--model', 'DiNAT', 'a.py', 'none'], 'every --model must have another name'),
    ],
    ids=lambda value: value[0].strip('-') if isinstance(value, list) else '',
)
def test_mistakes_in_options_of_saliency(changes, message, files, saliency, tmp_path):
    arguments = [files.image, '--model', 'DiNAT', files.nat, 'none', '--out-dir', str(tmp_path)]
    with pytest.raises(UserError, match=message):
        saliency([*arguments, *changes])
