"""Tests freezing, modes, stochastic depth and activation checkpointing."""

import pytest
import torch
from torch import nn


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def expected_frozen(model, frozen_stages):
    prefixes = ['patch_embed.'] if frozen_stages >= 0 else []
    for index in range(frozen_stages):
        prefixes += [f'levels.{index}.', f'norm{index}.']
    return {name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes))}


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_parameters(make_nat, frozen_stages):
    model = make_nat(frozen_stages=frozen_stages, layer_scale=0.1)
    frozen = expected_frozen(model, frozen_stages)
    assert trainable(model) == {name for name, _ in model.named_parameters()} - frozen
    assert bool(frozen) == (frozen_stages >= 0)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_parts_stay_in_eval_mode(make_nat, frozen_stages):
    model = make_nat(frozen_stages=frozen_stages, drop_rate=0.1)
    for mode in (None, True, False, True):
        mode = True if mode is None else model.train(mode).training
        assert model.training == mode
        assert model.pos_drop.training == (mode and frozen_stages < 0)
        assert model.patch_embed.norm.training == (mode and frozen_stages < 0)
        for index, stage in enumerate(model.levels):
            thawed = mode and index >= frozen_stages
            assert all(module.training == thawed for module in stage.modules())
            assert getattr(model, f'norm{index}').training == thawed


def test_frozen_part_of_a_detector_stays_frozen(make_nat):
    detector = nn.ModuleDict({'backbone': make_nat(frozen_stages=1)})
    detector.eval()
    detector.train()
    assert not detector.backbone.levels[0].blocks[0].drop_path.training
    assert detector.backbone.levels[1].blocks[0].drop_path.training


def test_frozen_weights_do_not_move(make_nat):
    model = make_nat(frozen_stages=2, drop_path_rate=0.5, drop_rate=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    image = torch.randn(2, 3, 32, 40)
    first = model(image)
    assert torch.equal(first[1], model(image)[1])  # no dropout in frozen stages
    sum(each.sum() for each in first).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert moved <= trainable(model)


def test_frozen_stage_without_output_norm(make_nat):
    model = make_nat(frozen_stages=2, out_indices=(1, 3))
    assert not any(parameter.requires_grad for parameter in model.norm1.parameters())
    assert all(parameter.requires_grad for parameter in model.norm3.parameters())


@pytest.mark.parametrize('frozen_stages', [-1, 2])
def test_modes_return_the_model(make_nat, frozen_stages):
    model = make_nat(frozen_stages=frozen_stages)
    assert model.train() is model
    assert model.train(False) is model
    assert model.eval() is model


def test_drop_path_rises_linearly_over_all_layers(make_nat):
    model = make_nat(depths=(2, 1, 3, 1), drop_path_rate=0.3)
    rates = [layer.drop_path.p for stage in model.levels for layer in stage.blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def test_drop_path_acts_in_training_only(make_nat):
    model = make_nat(drop_path_rate=0.9)
    image = torch.randn(4, 3, 32, 40)
    with torch.no_grad():
        torch.manual_seed(1)
        assert not torch.equal(model.train()(image)[3], model.eval()(image)[3])
        assert torch.equal(model(image)[3], model(image)[3])


@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_activation_checkpointing_changes_nothing(make_nat, frozen_stages):
    image = torch.randn(3, 3, 40, 48)
    results = []
    for with_cp in (False, True):
        model = make_nat(
            depths=(2, 1, 1, 1),
            with_cp=with_cp,
            drop_path_rate=0.5,
            drop_rate=0.2,
            frozen_stages=frozen_stages,
        )
        torch.manual_seed(7)
        features = model(image)
        sum(each.square().sum() for each in features).backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        results.append((features, grads))
    (plain, plain_grads), (saved, saved_grads) = results
    torch.testing.assert_close(saved, plain)
    torch.testing.assert_close(saved_grads, plain_grads)


def test_activation_checkpointing_recomputes_layers(make_nat):
    model = make_nat(with_cp=True)
    calls = []
    model.levels[1].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    features = model(torch.randn(1, 3, 32, 32))
    assert len(calls) == 1
    features[3].sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert len(calls) == 3
