"""Implementations of the operator, and the choice between them.

A backend is a module with two functions:

``unsupported_reasons(query, bias, kernel_size) -> list[str]``
    why the backend does not support these arguments; empty if it does.
``forward(query, key, value, bias, kernel_size, dilation, scale) -> Tensor``
    the differentiable operator, on arguments that are already checked and, under autocast, cast.
"""

from __future__ import annotations

from torch import Tensor

from nat_mm.ops.backends import cpu, natten, portable, reference, triton

BACKENDS = {
    'cpu': cpu,
    'triton': triton,
    'natten': natten,
    'portable': portable,
    'reference': reference,
}
"""Backends by name, in the order in which 'auto' tries them; see benchmarks/results for GPUs."""


def choose_backend(
    name: str, query: Tensor, bias: Tensor | None, kernel_size: tuple[int, int]
) -> str:
    """Returns the name of the backend to use for the arguments.

    Args:
        name: Name of a backend, or 'auto' for the first that supports the arguments.
        query: [B, H, W, heads, head_dim].
        bias: [heads, 2 * rows - 1, 2 * columns - 1] or None.
        kernel_size: (rows, columns).

    Raises:
        ValueError: If there is no such backend, or it (for 'auto', every backend) does not support
            the arguments; the message gives the reasons.
    """
    if name != 'auto' and name not in BACKENDS:
        known = ', '.join(repr(known) for known in ('auto', *BACKENDS))
        raise ValueError(f'backend must be one of {known}, got {name!r}')
    candidates = automatic_order(query) if name == 'auto' else (name,)
    refusals = []
    for candidate in candidates:
        reasons = BACKENDS[candidate].unsupported_reasons(query, bias, kernel_size)
        if not reasons:
            return candidate
        refusals.append(f'{candidate}: ' + '; '.join(reasons))
    raise ValueError('no backend supports these arguments: ' + ' | '.join(refusals))


def automatic_order(query: Tensor) -> list[str]:
    """Returns the names of the backends in the order in which 'auto' tries them.

    Args:
        query: [B, H, W, heads, head_dim].
    """
    names = list(BACKENDS)
    if query.device.type == 'cpu':
        names.remove('triton')  # on the CPU it is interpreted, for tests only
    return names
