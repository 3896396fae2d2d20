"""Implementations of the operator, and the choice between them.

A backend is a module with two functions:

``unsupported_reasons(query, bias, kernel_size) -> list[str]``
    why the backend does not support these arguments; empty if it does.
``forward(query, key, value, bias, kernel_size, dilation, scale) -> Tensor``
    the differentiable operator, on arguments that are already checked and, under autocast, cast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad

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
        name: Name of a backend, or 'auto' for the first that supports the arguments. Only
            'reference' supports forward-mode differentiation and ``torch.func``'s derivatives.
        query: [B, H, W, heads, head_dim].
        bias: [heads, 2 * rows - 1, 2 * columns - 1] or None.
        kernel_size: (rows, columns).

    Raises:
        TypeError: If the name is not a string.
        ValueError: If there is no such backend, or it (for 'auto', every backend) does not support
            the arguments or derivatives; the message gives the reasons.
    """
    if name != 'auto' and (not isinstance(name, str) or name not in BACKENDS):
        known = ', '.join(repr(known) for known in ('auto', *BACKENDS))
        error = ValueError if isinstance(name, str) else TypeError
        raise error(f'backend must be one of {known}, got {name!r}')
    if name != 'reference' and _differentiates():
        if name == 'auto':
            return 'reference'
        raise ValueError(
            f'{name}: has no forward-mode derivative and none in torch.func; use '
            'backend="reference" for it'
        )
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


def _differentiates() -> bool:
    """Returns whether forward mode or ``torch.func`` differentiates what runs now.

    Operators without a forward-mode formula silently drop tangents.
    """
    if forward_ad._current_level >= 0:
        return True
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    kinds = {interpreter.key() for interpreter in get_interpreter_stack() or ()}
    return not kinds.isdisjoint((TransformType.Grad, TransformType.Jvp))
