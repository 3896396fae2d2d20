"""Maps, windows and tensors shared by the operator's tests."""

from typing import NamedTuple

import torch

from nat_mm.ops import neighborhood_attention_2d


class Case(NamedTuple):
    height: int
    width: int
    kernel_size: int | tuple[int, int]
    dilation: int | tuple[int, int] = 1

    @property
    def name(self):
        return f'{self.height}x{self.width}-k{self.kernel_size}-d{self.dilation}'.replace(' ', '')

    @property
    def kernel_pair(self):
        size = self.kernel_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def dilation_pair(self):
        step = self.dilation
        return step if isinstance(step, tuple) else (step, step)


CASES = [
    Case(3, 3, 3),
    Case(7, 8, 7),
    Case(9, 11, 3),
    Case(13, 10, 5),
    Case(29, 31, 7),
    Case(20, 26, 13),
    Case(14, 15, 7, 2),
    Case(20, 23, 3, 4),
    Case(28, 31, 7, 4),
    Case(17, 26, 5, 3),
    Case(21, 10, (7, 5), (3, 2)),
    Case(12, 33, (3, 11), (4, 3)),
    Case(1, 30, (1, 7), (1, 2)),
    Case(9, 23, (1, 5), (2, 3)),
    Case(20, 7, (9, 1)),
]
SMALL_CASES = [Case(3, 4, 3), Case(5, 7, 3), Case(7, 6, 3, 2), Case(9, 5, (3, 5), (3, 1))]
SMALL_CASES += [Case(1, 7, (1, 3), (1, 2)), Case(6, 4, (5, 1), (1, 2))]


def make_inputs(
    case, *, batch=2, heads=2, head_dim=4, dtype=torch.float64, bias=True, bias_dtype=None, seed=0
):
    """Makes random query, key and value as strided views of one projection, and a bias or None."""
    generator = torch.Generator().manual_seed(seed)
    projected = torch.randn(
        batch, case.height, case.width, 3, heads, head_dim, generator=generator, dtype=torch.float64
    )
    query, key, value = projected.to(dtype).unbind(3)
    if not bias:
        return query, key, value, None
    rows, columns = case.kernel_pair
    table = torch.randn(
        heads, 2 * rows - 1, 2 * columns - 1, generator=generator, dtype=torch.float64
    )
    return query, key, value, table.to(bias_dtype or dtype)


def with_gradients(function, inputs, seed=1):
    """Returns the output of ``function`` and the gradients of a random projection of it."""
    inputs = [None if t is None else t.detach().clone().requires_grad_() for t in inputs]
    output = function(*inputs)
    generator = torch.Generator().manual_seed(seed)
    grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    wanted = [t for t in inputs if t is not None]
    return [output.detach(), *torch.autograd.grad(output, wanted, grad_output.to(output))]


def run(case, backend, *inputs, scale=None):
    """Runs the operator on query, key, value and bias."""
    return neighborhood_attention_2d(
        *inputs[:3],
        bias=inputs[3],
        kernel_size=case.kernel_size,
        dilation=case.dilation,
        scale=scale,
        backend=backend,
    )


def outcome(case, backend, inputs, *, scale=None):
    """Returns the output and the gradients of `run`; see `with_gradients`."""
    return with_gradients(lambda *tensors: run(case, backend, *tensors, scale=scale), inputs)
