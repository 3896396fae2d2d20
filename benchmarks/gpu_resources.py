"""Measures the GPU resources that the kernels use by compiling them; no GPU is needed.

``python -m benchmarks.gpu_resources`` prints the resources as a Markdown page.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from nat_mm.ops.backends.triton.launch import KERNELS
from nat_mm.ops.backends.triton.problem import make_constants, make_table_constants
from nat_mm.ops.backends.triton.tiles import choose_tiles, fast_precision, float32_precision
from nat_mm.ops.backends.triton.window import MAP_SIZES

MEASURED = ('forward', 'queries', 'keys')
"""All kernels but the one that adds up the gradients of the bias."""
TARGETS = {
    'sm_80': GPUTarget('cuda', 80, 32),
    'sm_90': GPUTarget('cuda', 90, 32),
    'sm_100': GPUTarget('cuda', 100, 32),
    'sm_120': GPUTarget('cuda', 120, 32),
    'gfx942': GPUTarget('hip', 'gfx942', 64),
}
KINDS = {'sm_90': 'hopper', 'gfx942': 'amd'}
"""Kinds in ``nat_mm.ops.backends.triton.tiles.GPUS``; the other targets are 'nvidia'."""
_TYPES = {torch.float16: '*fp16', torch.bfloat16: '*bf16', torch.float32: '*fp32'}
_FLOAT32_TENSORS = ('bias', 'statistics', 'delta', 'partial_tables')
_TITLES = (
    'registers',
    'spills',
    'shared memory',
    'matrix instructions',
    'loop, interior',
    'loop, border',
)
_HEAD = """# What the GPU kernels take

Made by `python -m benchmarks.gpu_resources`, which compiles the GPU kernels and needs
no GPU: maps with a bias, kernel size 7. *Registers* are those of a thread; *spills* the bytes
(NVIDIA) or registers (AMD) of a thread that went to memory instead; *shared memory* is bytes of a
program; *matrix instructions* are those of tensor or matrix cores in the code, which float32 uses
on NVIDIA only for heads of up to 32 channels on sm_90, in three TF32 products each; *loop* counts
the instructions of a warp for one block, in tiles inside the map and at its borders.
"""
_MATRIX_INSTRUCTIONS = {
    'ptx': r'\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)',
    'amdgcn': r'\bv_mfma_',
}


class Resources(NamedTuple):
    """Resources of one program of a kernel.

    Attributes:
        registers: Per thread; vector registers on AMD.
        spills: Bytes (NVIDIA) or registers (AMD) per thread spilled to memory.
        shared_memory: Bytes.
        matrix_instructions: Number of tensor-core or matrix-core instructions in the code.
    """

    registers: int
    spills: int
    shared_memory: int
    matrix_instructions: int


class LoopInstructions(NamedTuple):
    """Number of instructions that a warp executes for one block.

    Attributes:
        interior: In tiles whose windows touch no border of the map.
        border: In all others.
    """

    interior: int
    border: int


def compile_kernel(
    kernel: str, target: str, *, kernel_size: int, head_dim: int, dtype: torch.dtype
) -> CompiledKernel:
    """Compiles a kernel with its default tiles, for maps with a bias and no dilation.

    Args:
        kernel: 'forward', or in the backward pass 'queries' or 'keys'.
        target: 'sm_80' (A100), 'sm_90' (H100), 'sm_100' (B200), 'sm_120' (RTX 50) or 'gfx942'
            (MI300); the GPU itself need not be present.
        kernel_size: Kernel size of both axes.
        head_dim: A multiple of 8.
        dtype: float16, bfloat16 or float32.
    """
    function = KERNELS[kernel]
    is_float32 = dtype == torch.float32
    gpu = KINDS.get(target, 'nvidia')
    window = (kernel_size, kernel_size)
    tiles = choose_tiles(
        kernel,
        kernel_size=window,
        head_dim=head_dim,
        bytes_per_element=dtype.itemsize,
        gpu=gpu,
    )
    precision = float32_precision(gpu, head_dim) if is_float32 else 'ieee'
    constants = make_constants(head_dim, True, window, (1, 1), tiles, precision)
    if kernel == 'queries':
        sums = precision if is_float32 else fast_precision(gpu)
        constants |= make_table_constants(window, sums)
    aligned = [['tt.divisibility', 16]]
    signature: dict[str, str] = {}
    attributes: dict[tuple[int, ...], list] = {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = 'constexpr'
        elif name.endswith(('_image', '_row', '_column', '_head')):
            signature[name] = 'i32'
            attributes[(place,)] = aligned
        elif name in MAP_SIZES:
            signature[name] = 'i32'
        elif name == 'SCALE':
            signature[name] = 'fp32'
        else:
            signature[name] = '*fp32' if name in _FLOAT32_TENSORS else _TYPES[dtype]
            attributes[(place,)] = aligned
    source = ASTSource(function, signature, constants, attributes)
    return triton.compile(source, target=TARGETS[target], options=tiles.options())


def measure_resources(compiled: CompiledKernel) -> Resources:
    """Measures the resources of a compiled kernel; see :func:`compile_kernel`."""
    language = 'ptx' if 'ptx' in compiled.asm else 'amdgcn'
    instructions = re.findall(_MATRIX_INSTRUCTIONS[language], compiled.asm[language])
    registers, spills = (_nvidia_usage if language == 'ptx' else _amd_usage)(compiled)
    return Resources(registers, spills, compiled.metadata.shared, len(instructions))


def loop_instructions(compiled: CompiledKernel) -> LoopInstructions:
    """Counts the instructions that each warp executes for one block; NVIDIA GPUs only."""
    loops: list[tuple[int, int]] = []
    labels: dict[str, int] = {}
    number = 0
    # Data-flow analysis takes a quarter of the time, and its output is not used here.
    code = _nvidia_tool('nvdisasm', '--print-code', '--no-dataflow', compiled=compiled)
    for line in code.splitlines():
        if label := re.match(r'(\.L_\w+):', line):
            labels[label.group(1)] = number
        elif re.match(r'\s*/\*[0-9a-f]+\*/\s', line):
            number += 1
            jump = re.search(r'\bBRA\b.*`\((\.L_\w+)\)', line)
            if jump and jump.group(1) in labels:  # a jump back ends a loop
                loops.append((labels[jump.group(1)], number))
    innermost = [
        end - start
        for start, end in loops
        if not any(start <= first and last < end for first, last in loops)
    ]
    # The two longest loops are those of interior tiles (shorter, without index arithmetic) and of
    # border tiles. The rest are a one-instruction loop after the code and, in float32, the first of
    # the query kernel's two passes over its keys.
    return LoopInstructions(*sorted(innermost)[-2:])


def _nvidia_tool(name: str, *options: str, compiled: CompiledKernel) -> str:
    tool = Path(nvidia.__file__).with_name('bin') / name
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(compiled.asm['cubin'])
        file.flush()
        command = [str(tool), *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _nvidia_usage(compiled: CompiledKernel) -> tuple[int, int]:
    printed = _nvidia_tool('cuobjdump', '--dump-resource-usage', compiled=compiled)
    found = re.search(r'REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)', printed)
    if found is None:
        raise ValueError(f'cuobjdump printed no resources: {printed}')
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


def _amd_usage(compiled: CompiledKernel) -> tuple[int, int]:
    code = compiled.asm['amdgcn']
    (registers,) = re.findall(r'\.vgpr_count:\s*(\d+)', code)[:1]
    spills = re.findall(r'\.[sv]gpr_spill_count:\s*(\d+)', code)
    return int(registers), sum(map(int, spills))


def main() -> None:
    """Prints the resources of all kernels for kernel size 7 as a Markdown page."""
    print(_HEAD, flush=True)
    print('| GPU | kernel | head_dim | dtype | ' + ' | '.join(_TITLES) + ' |')
    print('| --- ' * (4 + len(_TITLES)) + '|')
    dtypes = (torch.bfloat16, torch.float32)
    for target, kernel, head_dim, dtype in itertools.product(TARGETS, MEASURED, (32, 64), dtypes):
        options = dict(kernel_size=7, head_dim=head_dim, dtype=dtype)
        compiled = compile_kernel(kernel, target, **options)
        found = measure_resources(compiled)
        is_nvidia = TARGETS[target].backend == 'cuda'
        loops = loop_instructions(compiled) if is_nvidia else ('', '')
        cells = (target, kernel, head_dim, str(dtype).removeprefix('torch.'), *found, *loops)
        print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)


if __name__ == '__main__':
    main()
