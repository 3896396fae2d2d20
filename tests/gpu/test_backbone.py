"""Tests a backbone on a GPU, trained in the ways that users train it: ``make test-gpu``."""

import copy

import pytest
import torch

pytest.importorskip('mmengine', reason='mmengine is not installed')
from nat_mm.backbones import DiNAT

if not torch.cuda.is_available():
    pytest.skip('no GPU was found', allow_module_level=True)

LARGEST_ERROR = {torch.float16: 5e-3, torch.bfloat16: 3e-2}
STEPS = 30


def make_model(**options):
    torch.manual_seed(0)
    sizes = dict(embed_dim=32, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), mlp_ratio=2.0)
    dilations = [[1], [1, 2], [1], [1]]
    model = DiNAT(**sizes, dilations=dilations, kernel_size=7, drop_path_rate=0.0, **options)
    return model.cuda().train()


def make_image():
    torch.manual_seed(1)
    return torch.randn(2, 3, 120, 168, device='cuda')


def run(model, image):
    """Returns features and the gradients of all parameters in float32."""
    features = model(image)
    parameters = [each for each in model.parameters() if each.requires_grad]
    loss = sum(each.float().relu().square().mean() for each in features)
    return [each.detach().float() for each in (*features, *torch.autograd.grad(loss, parameters))]


def largest_error(found, exact):
    """Returns the largest error of a tensor, relative to the tensor's norm."""
    pairs = list(zip(found, exact, strict=True))
    return max(float((mine - its).norm() / its.norm().clamp_min(1e-6)) for mine, its in pairs)


def train(model, autocast):
    """Returns the losses of a few steps to a fixed target, with a gradient scaler for float16."""
    image = make_image()
    torch.manual_seed(2)
    with torch.no_grad():
        target = [torch.randn_like(each) for each in model(image)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler('cuda', enabled=autocast == torch.float16)
    losses = []
    for _ in range(STEPS):
        with torch.autocast('cuda', autocast, enabled=autocast is not None):
            features = model(image)
        pairs = zip(features, target, strict=True)
        loss = sum((mine.float() - its).square().mean() for mine, its in pairs)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


def test_like_the_reference_on_the_cpu():
    model = make_model()
    twin = make_model(attention_backend='reference').cpu()
    image = make_image()
    with torch.backends.cudnn.flags(
        enabled=True, allow_tf32=False
    ):  # convolutions use TF32 by default
        found = [each.cpu() for each in run(model, image)]
    assert largest_error(found, run(twin, image.cpu())) < 1e-3


def test_compiled_to_one_graph():
    model, image = make_model(), make_image()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    assert largest_error(run(compiled, image), run(model, image)) < 1e-3


def test_training_with_cuda_graphs():
    exact = train(make_model(), None)
    model = make_model()
    model.compile(mode='reduce-overhead')
    torch.testing.assert_close(train(model, None), exact, rtol=1e-2, atol=0)


def test_channels_last():
    model, image = make_model(), make_image()
    expected = run(model, image)
    model.to(memory_format=torch.channels_last)
    found = run(model, image.contiguous(memory_format=torch.channels_last))
    assert largest_error(found, expected) < 1e-3


@pytest.mark.parametrize('dtype', LARGEST_ERROR, ids=['float16', 'bfloat16'])
def test_features_under_autocast(dtype):
    model, image = make_model(), make_image()
    with torch.no_grad():
        exact = model(image)
        with torch.autocast('cuda', dtype):
            found = model(image)
    assert largest_error([each.float() for each in found], exact) < LARGEST_ERROR[dtype]


def test_activation_checkpointing_gives_the_same_bits():
    image = make_image()
    for mine, its in zip(
        run(make_model(with_cp=True), image), run(make_model(), image), strict=True
    ):
        assert torch.equal(mine, its)


@pytest.mark.parametrize('dtype', LARGEST_ERROR, ids=['float16', 'bfloat16'])
def test_training_in_16_bits_falls_as_in_32(dtype):
    exact = train(make_model(), None)
    found = train(make_model(), dtype)
    assert exact[-1] < 0.9 * exact[0]
    fall = exact[0] - exact[-1]
    for step, (mine, its) in enumerate(zip(found, exact, strict=True)):
        assert abs(mine - its) < 0.1 * fall, step
