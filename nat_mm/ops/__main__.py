"""Prints the backends that work on this machine: ``python -m nat_mm.ops``."""

from __future__ import annotations

import sys

import torch

from nat_mm.ops.backends import BACKENDS, automatic_order, choose_backend, cpu
from nat_mm.output import perhaps_unread

KERNEL_SIZE = (7, 7)


def main() -> int:
    """Prints each device's backends and how the CPU kernel runs; returns the exit code."""
    for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
        _print_device(device)
    if cpu.installation_problem() is None:
        try:
            instruction_set = cpu.instruction_set()
        except ValueError as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        print('CPU kernel')
        print(f'  instruction set: {instruction_set}')
        print(f'  available: {", ".join(cpu.available_instruction_sets())}')
        print(f'  threads: {cpu.thread_count()}')
    return 0


def _print_device(device: str) -> None:
    print(f'{device.upper()} tensors')
    examples = {
        name: torch.empty(1, 7, 7, 1, 32, dtype=dtype, device=device)
        for name, dtype in (('float32', torch.float32), ('bfloat16', torch.bfloat16))
    }
    for name, backend in BACKENDS.items():
        reasons = backend.unsupported_reasons(examples['float32'], None, KERNEL_SIZE)
        print(f'  {name}: {"; ".join(reasons) or "available"}')
    order = automatic_order(examples['float32'])
    print(f"  'auto' takes the first available of: {', '.join(order)}")
    for name, example in examples.items():
        print(f"  'auto' takes for {name}: {choose_backend('auto', example, None, KERNEL_SIZE)}")


if __name__ == '__main__':
    with perhaps_unread(interrupted=0):
        sys.exit(main())
