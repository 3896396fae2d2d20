"""Tests the features that backbones return."""

import copy
import math
import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn.functional import layer_norm

SIZES = [(32, 32), (33, 47), (64, 96), (37, 130)]


def size_id(size):
    return 'x'.join(map(str, size))


@pytest.mark.parametrize('size', SIZES, ids=size_id)
@pytest.mark.parametrize('family', ['make_nat', 'make_dinat', 'make_dinat_s'])
def test_feature_shapes(family, size, request):
    model = request.getfixturevalue(family)().eval()
    with torch.no_grad():
        features = model(torch.randn(2, 3, *size))
    assert isinstance(features, tuple)
    assert [tuple(each.shape) for each in features] == [
        (2, 32 * 2**i, math.ceil(size[0] / (4 * 2**i)), math.ceil(size[1] / (4 * 2**i)))
        for i in range(4)
    ]
    # mmcv's compiled RoIAlign needs contiguous maps.
    assert all(each.is_contiguous() for each in features)


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@pytest.mark.parametrize('family', ['make_nat', 'make_dinat', 'make_dinat_s'])
def test_traced_with_gradients(family, training, request):
    """Tracing without ``no_grad`` keeps the features and the gradients."""
    model = request.getfixturevalue(family)(drop_path_rate=0.0).train(training)
    traced = torch.jit.trace(model, torch.randn(1, 3, 64, 96))
    image = torch.randn(1, 3, 64, 96)
    results = []
    for run in (traced, model):
        features = run(image)
        loss = sum(each.square().sum() for each in features)
        results.append([*features, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('family', ['make_nat', 'make_dinat_s'])
def test_forward_mode(family, request):
    model = request.getfixturevalue(family)().eval().double()
    image, direction = torch.randn(2, 1, 3, 32, 40, dtype=torch.float64).unbind()
    ahead, behind = (model(image + step * direction)[3] for step in (1e-5, -1e-5))
    expected = (ahead - behind) / 2e-5
    with forward_ad.dual_level():
        feature = model(forward_ad.make_dual(image, direction))[3]
        found = forward_ad.unpack_dual(feature).tangent
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    _, found = torch.func.jvp(lambda image: model(image)[3], (image,), (direction,))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('family', ['make_nat', 'make_dinat_s'])
def test_vmap(family, request):
    model = request.getfixturevalue(family)().eval()
    images = torch.randn(2, 3, 32, 40)
    features = torch.func.vmap(lambda image: model(image[None]))(images)
    for found, expected in zip(features, model(images), strict=True):
        torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)

    def loss(parameters, image):
        features = torch.func.functional_call(model, parameters, (image[None],))
        return sum(each.square().sum() for each in features)

    parameters = dict(model.named_parameters())
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    expected = torch.autograd.grad(loss(parameters, images[1]), list(parameters.values()))
    found = [each[1] for each in per_sample.values()]
    torch.testing.assert_close(found, list(expected), rtol=1e-3, atol=1e-3)


def test_features_are_normalized_stage_outputs(make_nat):
    model = make_nat().eval()
    outputs = []
    for stage in model.levels:
        stage.register_forward_hook(lambda _module, _input, output: outputs.append(output))
    with torch.no_grad():
        for index, feature in enumerate(model(torch.randn(1, 3, 40, 56))):
            expected = layer_norm(outputs[index], outputs[index].shape[-1:]).movedim(-1, 1)
            torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize('out_indices', [(0,), (3,), (1, 3), [0, 1, 2]], ids=str)
def test_out_indices_choose_features(make_nat, out_indices):
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        everything = make_nat().eval()(image)
        chosen = make_nat(out_indices=out_indices).eval()(image)
    assert len(chosen) == len(out_indices)
    for index, feature in zip(out_indices, chosen, strict=True):
        assert torch.equal(feature, everything[index])


@pytest.mark.parametrize(
    'options',
    [{}, {'layer_scale': 1e-5}, {'out_indices': (1,)}, {'out_indices': (0, 2)}, {'with_cp': True}],
    ids=str,
)
def test_every_trained_parameter_gets_a_gradient(make_nat, options):
    model = make_nat(**options)
    sum(feature.square().sum() for feature in model(torch.randn(1, 3, 32, 40))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_parts_after_the_last_output_are_not_trained(make_nat):
    model = make_nat(out_indices=(0, 2))
    idle = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert idle == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(('levels.2.downsample.', 'levels.3.'))
    }


def test_dilation_changes_the_features(make_dinat):
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        dilated = make_dinat().eval()(image)
        plain = make_dinat(dilations=[[1]] * 4).eval()(image)
    assert not torch.allclose(dilated[0], plain[0])


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((3, 64, 64), r'takes images \[B, 3, H, W\], got shape \[3, 64, 64\]'),
        ((1, 1, 64, 64), r'takes images \[B, 3, H, W\], got shape \[1, 1, 64, 64\]'),
        ((1, 3, 31, 64), r'at least 32 x 32, got 31 x 64'),
        ((1, 3, 64, 31), r'at least 32 x 32, got 64 x 31'),
    ],
    ids=str,
)
def test_wrong_image_shape(make_nat, shape, message):
    with pytest.raises(ValueError, match=message):
        make_nat()(torch.zeros(shape))


@pytest.mark.parametrize('image', [None, [[0.0]]], ids=str)
def test_image_that_is_no_tensor(make_nat, image):
    with pytest.raises(TypeError, match=r'\[B, 3, H, W\] as a tensor, got (NoneType|list)'):
        make_nat()(image)


def test_in_channels(make_nat):
    with torch.no_grad():
        assert make_nat(in_channels=5).eval()(torch.randn(1, 5, 32, 32))[0].shape[1] == 32


def test_empty_batch(make_nat):
    assert [len(each) for each in make_nat()(torch.zeros(0, 3, 32, 48))] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    'duplicate',
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=['deepcopy', 'pickle'],
)
def test_duplicates_are_equal_and_independent(make_nat, duplicate):
    model = make_nat(frozen_stages=1, layer_scale=0.1).eval()
    twin = duplicate(model)
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        before = model(image)
        for parameter in model.parameters():
            parameter.zero_()
        for mine, theirs in zip(before, twin(image), strict=True):
            assert torch.equal(mine, theirs)


def test_bfloat16_autocast_stays_close_to_float32(make_nat):
    model = make_nat().eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            rough = model(image)
    for one, other in zip(exact, rough, strict=True):
        assert (one - other.float()).abs().mean() < 0.05 * one.abs().mean()


def test_bfloat16_autocast_trains(make_nat):
    model = make_nat()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = sum(each.float().square().mean() for each in model(torch.randn(1, 3, 32, 40)))
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
