"""Tests the configs that compare attention patterns, tokenizers, downsamplers and kernel sizes."""

import copy
import importlib
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torchvision.models import Swin_T_Weights

from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.workloads import find_workload
from nat_mm.layers import (
    ConvDownsampler,
    ConvTokenizer,
    NeighborhoodAttention2D,
    PatchMerging,
    PatchTokenizer,
    SelfAttention2D,
    ShiftedWindowAttention2D,
    StandAloneAttention2D,
)
from tests.model_zoo import ROOT

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')

FOLDER = ROOT / 'configs/classification/ablations'
ROWS = yaml.safe_load((FOLDER / 'published.yml').read_text())
CONFIGS = [path.stem for path in sorted(FOLDER.glob('*.py'))]
NAT_TINY = {
    'embed_dim': 64,
    'depths': [3, 4, 18, 5],
    'heads': [2, 4, 8, 16],
    'mlp_ratio': 3,
    'attention': NeighborhoodAttention2D,
    'tokenizer': ConvTokenizer,
    'downsampler': ConvDownsampler,
    'kernel_size': 7,
}
SWIN_TINY = {
    'embed_dim': 96,
    'depths': [2, 2, 6, 2],
    'heads': [3, 6, 12, 24],
    'mlp_ratio': 4,
    'attention': ShiftedWindowAttention2D,
    'tokenizer': PatchTokenizer,
    'downsampler': PatchMerging,
    'kernel_size': 7,
}
CHANGES = {
    'neighborhood': {'attention': NeighborhoodAttention2D},
    'sasa': {'attention': StandAloneAttention2D},
    'shifted_window': {'attention': ShiftedWindowAttention2D},
    'full': {'attention': SelfAttention2D},
    'conv': {'tokenizer': ConvTokenizer, 'downsampler': ConvDownsampler},
    'patch': {'tokenizer': PatchTokenizer, 'downsampler': PatchMerging},
    'patch_tokenizer': {'tokenizer': PatchTokenizer},
    'patch_downsampler': {'downsampler': PatchMerging},
    **{f'{size}x{size}': {'kernel_size': size} for size in (3, 5, 9, 11, 13)},
}


def build(name):
    config = Config.fromfile(FOLDER / f'{name}.py')
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        return MODELS.build(config.model), config


@pytest.fixture(scope='module', params=CONFIGS)
def built(request):
    """Each config: its name, its model on the meta device and the config itself."""
    return request.param, *build(request.param)


def test_every_config_has_a_row():
    rows = [row['config'] for row in ROWS]
    assert sorted(rows) == sorted(
        ['nat/nat_tiny_in1k_224.py', *(f'ablations/{name}.py' for name in CONFIGS)]
    )


def test_model_is_what_the_name_says(built):
    name, model, _ = built
    base, change = re.fullmatch(r'(nat|swin)_tiny_?(\w*)_in1k_224', name).groups()
    wanted = {**(NAT_TINY if base == 'nat' else SWIN_TINY), **CHANGES.get(change, {})}
    assert change in CHANGES or not change
    backbone = model.backbone
    assert type(backbone.patch_embed) is wanted['tokenizer']
    assert [len(stage.blocks) for stage in backbone.stages] == wanted['depths']
    for index, stage in enumerate(backbone.stages):
        if index < 3:
            assert type(stage.downsample) is wanted['downsampler']
        channels = wanted['embed_dim'] * 2**index
        for number, block in enumerate(stage.blocks):
            assert type(block.attn) is wanted['attention']
            assert block.attn.num_heads == wanted['heads'][index]
            assert block.attn.rpb.shape[-1] == 2 * wanted['kernel_size'] - 1
            assert block.mlp.fc1.weight.shape == (wanted['mlp_ratio'] * channels, channels)
            if type(block.attn) is ShiftedWindowAttention2D:
                assert block.attn.shift == 3 * (number % 2)
    assert model.head.fc.weight.shape == (1000, 8 * wanted['embed_dim'])
    assert backbone.stages[-1].blocks[-1].drop_path.p == pytest.approx(0.2)


def test_readme_has_the_parameters_and_what_was_published(built):
    name, model, _ = built
    (row,) = re.findall(rf'^\| \[{name}\].*', (FOLDER / 'README.md').read_text(), re.MULTILINE)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f'| {parameters / 1e6:.2f} M |' in row
    published = {Path(each['config']).stem: each.get('published', {}) for each in ROWS}[name]
    assert row.endswith(f'| {published.get("top1", "")} |')


def test_configs_are_short(built):
    name, _, config = built
    assert len((FOLDER / f'{name}.py').read_text().splitlines()) <= 15
    assert config.train_dataloader.batch_size == 128


def test_swin_has_the_parameters_of_torchvisions_and_the_published_costs():
    model, config = build('swin_tiny_in1k_224')
    workload = find_workload(model, config)
    costs = count_costs(copy.deepcopy(model), (224, 224), workload.run)
    assert costs.parameters[''] == Swin_T_Weights.IMAGENET1K_V1.meta['num_params']
    assert costs.multiply_adds[''] / 1e9 == pytest.approx(4.5, abs=0.05)


@pytest.mark.parametrize('shift', [0, 3])
@pytest.mark.parametrize('toolbox', ['mmdet', 'mmseg'])
def test_window_attention_is_mmdetections_and_mmsegmentations(toolbox, shift):
    swin = importlib.import_module(f'{toolbox}.models.backbones.swin')
    module = ShiftedWindowAttention2D(32, 4, window_size=7, shift=shift)
    torch.nn.init.normal_(module.rpb)
    theirs = swin.ShiftWindowMSA(32, 4, window_size=7, shift_size=shift).eval()
    theirs.w_msa.qkv.load_state_dict(module.qkv.state_dict())
    theirs.w_msa.proj.load_state_dict(module.proj.state_dict())
    with torch.no_grad():
        table = module.rpb.flip(1, 2).flatten(1).T
        theirs.w_msa.relative_position_bias_table.copy_(table)
        x = torch.randn(2, 17, 20, 32)
        expected = theirs(x.flatten(1, 2), (17, 20)).view_as(x)
        torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
