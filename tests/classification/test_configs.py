"""Tests that the classification configs match the published classifiers."""

import pytest

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')

FAMILIES = {'NAT': 'levels', 'DiNAT': 'levels', 'DiNAT_s': 'layers'}


def test_every_classifier_has_a_config(leaves, facts):
    assert sorted(leaves) == sorted(facts)


def test_metafile_describes_the_config(classifier, metadata):
    _, facts = classifier
    assert metadata['Architecture'] == [facts['name']]
    first = ['ImageNet-22k'] if facts['pretraining'] else []
    assert metadata['Training Data'] == [*first, 'ImageNet-1k']
    assert metadata['Input Size'] == '{0}x{0}'.format(facts['resolution'])


def test_weights_are_those_of_the_config(leaves, model_zoo):
    for name in leaves:
        weights = model_zoo[name]['Weights'].rpartition('/')[2]
        if name.startswith('nat'):
            assert weights == name.replace('_in1k_224', '.pth')
        elif name.startswith('dinat_s'):
            assert weights == name.replace('in22k_', '') + '.pth'
        else:
            assert weights == f'{name}.pth'


def test_pretrained_weights(classifier):
    config, facts = classifier
    wanted = {'type': 'Pretrained', 'checkpoint': facts['pretraining']}
    assert config.model.backbone.get('init_cfg') == (wanted if facts['pretraining'] else None)
    assert config.load_from is None


def test_backbone(classifier, model):
    config, facts = classifier
    family, arch = facts['name'].split('-')
    backbone = config.model.backbone
    assert (backbone.type, backbone.arch) == (family, arch.lower())
    assert model.backbone.out_indices == (3,)
    stages = getattr(model.backbone, FAMILIES[family])
    for index, stage in enumerate(stages):
        tokens = facts['resolution'] // (4 * 2**index)
        # Every second layer has the largest dilation that fits the map, but none in the last stage.
        widest = tokens // facts['kernel_size'] if family != 'NAT' and index < 3 else 1
        for number, block in enumerate(stage.blocks):
            assert block.attn.kernel_size == facts['kernel_size']
            assert block.attn.dilation == (1, widest)[number % 2]


def test_head_takes_the_last_stage(model):
    channels = model.backbone.norm3.normalized_shape[0]
    assert model.head.fc.weight.shape == (1000, channels)


def test_resolution(classifier):
    config, facts = classifier
    train = [step for step in config.train_pipeline if step.type == 'RandomResizedCrop']
    test = {step.type: step for step in config.test_pipeline}
    resolution = facts['resolution']
    assert [step.scale for step in train] == [resolution]
    assert test['CenterCrop'].crop_size == resolution
    # The authors crop 0.875 of the short side at 224 and all of it at 384.
    assert test['ResizeEdge'].scale == {224: 256, 384: 384}[resolution]
    for part in ('train', 'test'):
        pipeline = config[f'{part}_dataloader'].dataset.pipeline
        assert [step.type for step in pipeline] == [
            step.type for step in config[f'{part}_pipeline']
        ]
        sizes = [step.get('scale', step.get('crop_size')) for step in pipeline]
        assert resolution in sizes


def test_number_of_parameters_is_the_published(classifier, model, metadata):
    _, facts = classifier
    published = metadata['Parameters'] / 1e6
    if facts['kernel_size'] == 11:
        # The table repeats the figure of the 7 x 7 model, whose RPB tables are smaller.
        heads = sum(
            len(stage.blocks) * stage.blocks[0].attn.rpb.shape[0] for stage in model.backbone.stages
        )
        published += heads * (21**2 - 13**2) / 1e6
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(published, abs=0.5 + 0.5)
