"""Tests taking query, key and value out of one tensor, and merging their gradients."""

import inspect

import pytest
import torch

from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.packing import unpack
from tests.ops.kernel import CPU, needs_kernel

SHAPE = (2, 5, 6, 3, 2, 8)


def backward_operators(run):
    """Returns the operators that the backward pass of ``run``'s result calls."""
    output = run()
    with torch.profiler.profile() as profile:
        output.square().sum().backward()
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize('backend', [CPU, 'portable', 'reference'])
def test_gradient_is_that_of_unbind(backend):
    torch.manual_seed(0)
    packed = torch.randn(SHAPE, requires_grad=True)
    grads = []
    for split in (unpack, lambda packed: packed.unbind(3)):
        output = neighborhood_attention_2d(*split(packed), kernel_size=3, backend=backend)
        grads.append(torch.autograd.grad(output.sin().sum(), packed))
    torch.testing.assert_close(grads[0], grads[1])


@needs_kernel
def test_gradients_are_not_copied():
    packed = torch.randn(SHAPE, requires_grad=True)

    def attend(split):
        return neighborhood_attention_2d(*split(packed), kernel_size=3, backend='cpu')

    assert 'aten::stack' in backward_operators(lambda: attend(lambda packed: packed.unbind(3)))
    found = backward_operators(lambda: attend(unpack))
    assert {'nat_mm::na2d_cpu_backward', '_UnpackBackward'} <= found
    assert not found & {'aten::stack', 'aten::cat'}


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 0, 0)])
def test_gradients_in_any_order(order):
    """Slices of one tensor pass for the whole only if they come in the expected order."""
    packed = torch.randn(SHAPE, requires_grad=True)
    whole = torch.randn(SHAPE)
    for source in (whole, whole.transpose(4, 5).contiguous().transpose(4, 5)):
        parts = source.unbind(3)
        given = [parts[i] for i in order]
        (grad,) = torch.autograd.grad(unpack(packed), packed, given)
        torch.testing.assert_close(grad, torch.stack(given, 3))


def test_partial_and_second_gradients():
    packed = torch.randn((1, 3, 3, 3, 1, 2), dtype=torch.float64, requires_grad=True)
    _, key, _ = unpack(packed)
    (grad,) = torch.autograd.grad(key.sum(), packed)
    assert grad[:, :, :, 1].eq(1).all()
    assert grad.sum() == key.numel()
    assert torch.autograd.gradgradcheck(
        lambda packed: torch.stack(unpack(packed)).pow(3).sum(), packed
    )


def test_function_transforms():
    packed = torch.randn(SHAPE)

    def loss(packed):
        return neighborhood_attention_2d(*unpack(packed), kernel_size=3, backend='reference').sum()

    (expected,) = torch.autograd.grad(loss(packed.requires_grad_()), packed)
    torch.testing.assert_close(torch.func.grad(loss)(packed.detach()), expected)


def test_no_signature_is_inspected(monkeypatch):
    """PyTorch would inspect it in every call, which takes longer than all the rest."""
    packed = torch.randn(SHAPE, requires_grad=True)
    monkeypatch.setattr(inspect, 'signature', pytest.fail)
    assert len(unpack(packed)) == 3
