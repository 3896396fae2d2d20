"""The models, optimizers and published sizes of the configs."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch import nn


@pytest.fixture(scope='module')
def built(experiment):
    config, facts = experiment
    # On the meta device nothing is drawn at random, which takes most of the time.
    with torch.device('meta'):
        return MODELS.build(config.model), config, facts


def test_number_of_parameters_is_the_published(built):
    model, _, facts = built
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert round(millions) == facts['params_M']


def test_backbone_has_the_published_shape(built):
    model, _, facts = built
    stages = model.backbone.levels
    assert [len(stage.blocks) for stage in stages] == facts['depths']
    for index, stage in enumerate(stages):
        channels = facts['embed_dim'] * 2**index
        for block in stage.blocks:
            assert block.attn.rpb.shape[0] == facts['num_heads'][index]
            assert block.attn.kernel_size in (facts['kernel_size'], (facts['kernel_size'],) * 2)
            assert block.attn.qkv.weight.shape == (3 * channels, channels)
            assert (block.attn.qkv.bias is not None) == facts['qkv_bias']
            assert block.mlp.fc1.out_features == int(channels * facts['mlp_ratio'])
            assert (getattr(block, 'gamma1', None) is None) == (facts['layer_scale'] is None)


def test_cascade_heads_are_the_published(cascade_experiment):
    config, _ = cascade_experiment
    with torch.device('meta'):
        model = MODELS.build(config.model)
    for head in model.roi_head.bbox_head:
        assert len(head.shared_convs) == 4
        assert len(head.shared_fcs) == 1
        assert all(isinstance(conv.bn, nn.SyncBatchNorm) for conv in head.shared_convs)
        assert head.fc_reg.out_features == 80 * 4
        assert head.reg_decoded_bbox
        assert type(head.loss_bbox).__name__ == 'GIoULoss'
        assert head.loss_bbox.loss_weight == 10.0


def test_weight_decay_spares_norms_and_rpb(built):
    model, config, facts = built
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert all(len(group['params']) == 1 for group in wrapper.optimizer.param_groups)
    decay = {
        names[group['params'][0]]: group['weight_decay'] for group in wrapper.optimizer.param_groups
    }
    assert decay.keys() == set(names.values())
    norms = [
        f'backbone.{name}.{weight}'
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.LayerNorm)
        for weight in ('weight', 'bias')
    ]
    tables = [name for name in decay if name.endswith('.rpb')]
    layers = sum(facts['depths'])
    # Two norms per layer, one per downsampler and per output, and the tokenizer's.
    assert len(norms) == 2 * (2 * layers + 3 + 4 + 1)
    assert len(tables) == layers
    assert {name for name, value in decay.items() if value == 0} == {*norms, *tables}
    assert {value for value in decay.values() if value} == {facts['weight_decay']}
