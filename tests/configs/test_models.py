"""Tests the models, optimizers and published sizes of the configs."""

import pytest
from torch import nn

from tests.configs.optimizers import find_norms, find_weight_decay


def test_number_of_parameters_is_the_published(built, model_zoo):
    model, _, facts = built
    published = model_zoo[facts['name']]['Metadata']['Parameters']
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # The published number is in whole millions.
    assert parameters == pytest.approx(published, abs=0.5e6)


def test_every_parameter_is_trained(built):
    model, _, _ = built
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_backbone_has_the_published_shape(built):
    model, _, facts = built
    published = facts['arch']
    stages = model.backbone.stages
    depths = published['depths']
    assert [len(stage.blocks) for stage in stages] == depths
    dilations = published.get('dilations', [[1] * depth for depth in depths])
    assert [[block.attn.dilation for block in stage.blocks] for stage in stages] == dilations
    for index, stage in enumerate(stages):
        channels = published['embed_dim'] * 2**index
        for block in stage.blocks:
            assert block.attn.rpb.shape[0] == published['num_heads'][index]
            assert block.attn.kernel_size == published['kernel_size']
            assert block.attn.qkv.weight.shape == (3 * channels, channels)
            assert (block.attn.qkv.bias is not None) == published['qkv_bias']
            assert block.mlp.fc1.out_features == int(channels * published['mlp_ratio'])
            assert (block.gamma1 is None) == ('layer_scale' not in published)
    assert stages[0].blocks[0].drop_path.p == 0
    assert stages[-1].blocks[-1].drop_path.p == pytest.approx(published['drop_path_rate'])
    has_norm = isinstance(model.backbone.patch_embed.norm, nn.LayerNorm)
    assert has_norm == published.get('patch_norm', True)


def test_cascade_heads_are_the_published(cascade):
    scales = [1, 2, 3]
    for head, scale in zip(cascade.roi_head.bbox_head, scales, strict=True):
        assert len(head.shared_convs) == 4
        assert len(head.shared_fcs) == 1
        assert all(isinstance(conv.bn, nn.SyncBatchNorm) for conv in head.shared_convs)
        assert head.fc_reg.out_features == 80 * 4
        assert head.reg_decoded_bbox
        assert type(head.loss_bbox).__name__ == 'GIoULoss'
        assert head.loss_bbox.loss_weight == 10.0
        expected = [value / scale for value in (0.1, 0.1, 0.2, 0.2)]
        assert head.bbox_coder.stds == pytest.approx(expected, abs=1e-3)


def test_weight_decay_spares_norms_and_rpb(built):
    model, config, facts = built
    decay = find_weight_decay(model, config)
    norms = find_norms(model.backbone)
    tables = {name for name in decay if name.endswith('.rpb')}
    layers = sum(facts['arch']['depths'])
    # Two norms per layer, one per downsampler and output, and one in the tokenizer.
    assert len(norms) == 2 * (2 * layers + 3 + 4 + 1)
    assert len(tables) == layers
    assert {name for name, value in decay.items() if value == 0} == norms | tables
    assert {value for value in decay.values() if value} == {facts['optimizer']['weight_decay']}
