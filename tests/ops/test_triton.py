"""Tests the GPU kernels in Triton's interpreter on CPU tensors, and compiled for GPUs.

The interpreter computes like a GPU but lacks its speed and parallelism.
"""

from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from torch._subclasses.fake_tensor import FakeTensorMode

from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS, choose_backend
from nat_mm.ops.backends.triton.tiles import float32_precision
from tests.ops.cases import Case, make_inputs, outcome, run
from tests.processes import run_alone

pytest.importorskip('triton', reason='PyTorch without Triton')

CASES = [
    Case(3, 3, 3),
    Case(7, 8, 7),
    Case(9, 12, 3),
    Case(10, 11, 9),
    Case(14, 15, 7, 2),
    Case(10, 9, 3, 3),
    Case(13, 14, 13),
    Case(19, 20, 3),  # each kernel has a tile far from all borders
    Case(21, 10, (7, 5), (3, 2)),
    Case(8, 23, (3, 11), (2, 2)),
    Case(8, 20, (1, 5)),  # also has a tile far from the borders
    Case(9, 2, (3, 1)),
]
KERNELS = ('forward', 'queries', 'keys')
INSTRUCTIONS = {
    'sm_80': {'forward': (197, 251), 'queries': (221, 301), 'keys': (217, 280)},
    'sm_90': {'forward': (217, 289), 'queries': (196, 266), 'keys': (221, 307)},
    'sm_100': {'forward': (222, 252), 'queries': (250, 286), 'keys': (274, 310)},
    'sm_120': {'queries': (219, 326), 'keys': (227, 310)},
}
"""The most instructions of a warp for one block inside the map and at its border.

These are for Triton 3.8, kernel size 7, head_dim 32 and bfloat16.
"""
SPILLED = 24 if Version(version('triton')) < Version('3.9') else 32
SPILLS = {
    ('sm_90', 'forward', 32, 7, 'bfloat16'): SPILLED,
    ('sm_90', 'queries', 32, 7, 'bfloat16'): SPILLED,
}
"""The most bytes that a thread spills, where an H200 was faster that way; elsewhere none."""
GPU_CASES = [(32, 7, 'bfloat16'), (64, 13, 'float16'), (64, 7, 'float32')]


@pytest.fixture
def interpreter(monkeypatch):
    """Fixes bfloat16 in Triton's interpreter, which tests/conftest.py turns on.

    The interpreter multiplies the bits of bfloat16 as if they were integers, and rounds towards
    zero.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    convert, create_dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot

    def convert_with_rounding(data, source, target, rounding):
        if (source, target) != (tl.float32, tl.bfloat16):
            return convert(data, source, target, rounding)
        bits = torch.from_numpy(data.view(np.float32).copy()).bfloat16().view(torch.int16)
        return bits.numpy().view(np.uint16).reshape(data.shape)

    def as_float32(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        data = convert(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def dot(builder, a, b, *rest):
        return create_dot(builder, as_float32(a), as_float32(b), *rest)

    monkeypatch.setattr(interpreter, '_convert_float', convert_with_rounding)
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_dot', dot)


def relative_errors(inputs, case, backend):
    """Returns the errors of output and gradients relative to the reference in float64."""
    exact = outcome(case, 'reference', [None if t is None else t.double() for t in inputs])
    found = outcome(case, backend, inputs)
    return [float((f.double() - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)]


@pytest.mark.usefixtures('interpreter', 'poisoned_memory')
class TestInterpreted:
    @pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
    def test_values_and_gradients(self, case):
        heads = 2 if case.height < 8 else 1  # the interpreter is slow
        inputs = make_inputs(case, batch=1, heads=heads, head_dim=8, dtype=torch.float32)
        assert max(relative_errors(inputs, case, 'triton')) < 2e-6

    @pytest.mark.parametrize('head_dim', [16, 24, 128])
    def test_head_dims_without_bias(self, head_dim):
        case = Case(9, 11, 5)
        options = dict(batch=1, heads=1, head_dim=head_dim, dtype=torch.float32, bias=False)
        assert max(relative_errors(make_inputs(case, **options), case, 'triton')) < 2e-6

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
    def test_low_precision_error_is_near_that_of_the_reference(self, dtype):
        """Weights, their gradients and the output passed to backward are rounded to 16 bits.

        The reference rounds only its results.
        """
        case = Case(8, 13, 5)
        inputs = make_inputs(
            case, batch=2, heads=1, head_dim=16, dtype=dtype, bias_dtype=torch.float32
        )
        errors = relative_errors(inputs, case, 'triton')
        for error, allowed in zip(errors, relative_errors(inputs, case, 'reference'), strict=True):
            assert error < 2.5 * allowed

    def test_any_strides(self):
        case = Case(7, 9, 3, 2)
        packed = make_inputs(case, batch=2, heads=1, dtype=torch.float32)
        odd = [t.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0) for t in packed[:3]]
        assert odd[0].stride(-1) != 1
        odd.append(packed[3].mT.contiguous().mT)
        output, *grads = outcome(case, 'triton', odd)
        expected = outcome(case, 'reference', packed)
        torch.testing.assert_close([output, *grads], expected)
        assert output.is_contiguous()

    def test_gradients_are_contiguous(self):
        """Compiled programs expect this, even of the bias gradient, a slice of a larger table."""
        query, key, value, bias = make_inputs(Case(3, 4, 3), batch=1, heads=1, dtype=torch.float32)
        output, statistics = torch.ops.nat_mm.na2d_triton(
            query, key, value, bias, [3, 3], [1, 1], 0.5
        )
        grads = torch.ops.nat_mm.na2d_triton_backward(
            output, query, key, value, bias, output, statistics, [3, 3], [1, 1], 0.5
        )
        assert all(grad.is_contiguous() for grad in grads)

    def test_views_of_a_projection_are_read_in_place(self, monkeypatch):
        """Neither the forward nor the backward pass copies them."""
        from nat_mm.ops.backends.triton import launch

        read = []
        launch_kernel = launch._launch

        def spy(kernel, tensors, *rest):
            read.append([tensor.data_ptr() for tensor in tensors[:3]])
            launch_kernel(kernel, tensors, *rest)

        monkeypatch.setattr(launch, '_launch', spy)
        inputs = make_inputs(Case(3, 4, 3), batch=1, heads=1, dtype=torch.float32, bias=False)
        leaves = [tensor.requires_grad_() for tensor in inputs[:3]]
        assert not leaves[0].is_contiguous()
        run(Case(3, 4, 3), 'triton', *leaves, None).sum().backward()
        assert read == 3 * [[tensor.data_ptr() for tensor in leaves]]

    def test_gradient_of_an_expanded_output(self):
        case = Case(6, 7, 3)
        inputs = make_inputs(case, batch=1, dtype=torch.float32)
        grads = []
        for backend in ('triton', 'reference'):
            query = inputs[0].detach().clone().requires_grad_()
            run(case, backend, query, *inputs[1:]).sum().backward()  # stride 0 everywhere
            grads.append(query.grad)
        torch.testing.assert_close(*grads)

    def test_large_scores_do_not_overflow(self):
        case = Case(6, 7, 3)
        inputs = [100 * t for t in make_inputs(case, batch=1, dtype=torch.float32)]
        expected = run(case, 'reference', *[t.double() for t in inputs])
        actual = run(case, 'triton', *inputs).double()
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-2)

    def test_empty_batch(self):
        case = Case(6, 7, 3)
        inputs = make_inputs(case, batch=0, dtype=torch.float32)
        output, *grads = outcome(case, 'triton', inputs)
        assert output.shape == grads[0].shape == (0, 6, 7, 2, 4)
        assert not grads[3].any()

    @pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
    def test_opcheck(self, bias):
        case = Case(3, 4, 3)
        options = dict(batch=1, heads=1, dtype=torch.float32, bias=bias)
        inputs = [None if t is None else t.requires_grad_() for t in make_inputs(case, **options)]
        torch.library.opcheck(torch.ops.nat_mm.na2d_triton.default, (*inputs, [3, 3], [1, 1], 0.5))


def test_heads_that_lie_too_far_apart_are_copied():
    from nat_mm.ops.backends.triton.launch import _readable

    strides = (2**33, 16, 8, 2**29, 1)
    near, far = (
        torch.empty_strided((1, 3, 3, heads, 8), strides, device='meta') for heads in (3, 4)
    )
    tensor, near_strides = _readable(near)
    assert tensor is near
    assert near_strides == strides[:4]
    copy, far_strides = _readable(far)
    assert copy.is_contiguous()
    assert far_strides == copy.stride()[:4]


def test_images_too_large_for_32_bits_are_not_served():
    served, refused = (torch.empty(1, 2**11, 2**w, 2, 128, device='meta') for w in (11, 12))
    reason = 'query must have at most 2147483647 numbers per image, got 2147483648'
    assert reason in BACKENDS['triton'].unsupported_reasons(refused, None, (7, 7))
    assert reason[:23] not in str(BACKENDS['triton'].unsupported_reasons(served, None, (7, 7)))


@pytest.mark.parametrize('head_dim', [8, 32, 64])
@pytest.mark.parametrize('capability', [(8, 0), (9, 0), (12, 0)], ids=str)
def test_float32_takes_three_products_of_tf32_where_that_was_tried(
    capability, head_dim, monkeypatch
):
    from nat_mm.ops.backends.triton import problem

    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda _: capability)
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(problem, '_kind_of_gpu', problem._kind_of_gpu.__wrapped__)
    with FakeTensorMode():
        query = torch.zeros(1, 3, 3, 1, head_dim, device='cuda')
    precision = 'tf32x3' if capability == (9, 0) and head_dim <= 32 else 'ieee'
    assert problem.LaunchProblem(query, False, (3, 3), (1, 1), 1.0).precision == precision


@pytest.mark.parametrize(
    ('setting', 'value', 'precision'),
    [
        ('allow_tf32', False, 'ieee'),
        ('allow_tf32', True, 'tf32'),
        ('fp32_precision', 'ieee', 'ieee'),
        ('fp32_precision', 'tf32', 'tf32'),
    ],
)
def test_tf32_only_where_pytorch_allows_it(setting, value, precision):
    from nat_mm.ops.backends.triton.problem import LaunchProblem

    query = torch.zeros(1, 3, 3, 1, 8)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        setattr(matmul, setting, value)
        assert LaunchProblem(query, False, (3, 3), (1, 1), 1.0).precision == precision
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize(
    ('options', 'kernel_size', 'message'),
    [
        ({'dtype': torch.float32}, 3, 'triton: supports only GPU tensors, got a tensor on cpu'),
        ({'dtype': torch.float64}, 3, 'supports float16, bfloat16 and float32, got torch.float64'),
        ({'head_dim': 136}, 3, 'head_dim must be from 1 to 128, got 136'),
        ({}, 15, r'kernel_size must be at most 13, got \(15, 15\)'),
    ],
    ids=str,
)
def test_what_it_does_not_serve(options, kernel_size, message, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET')
    inputs = make_inputs(Case(15, 15, kernel_size), batch=1, bias=False, **options)
    with pytest.raises(ValueError, match=message):
        neighborhood_attention_2d(*inputs[:3], kernel_size=kernel_size, backend='triton')


@pytest.mark.parametrize('has_natten', [True, False], ids=['natten', 'nonatten'])
def test_choice_on_a_gpu(monkeypatch, has_natten):
    reasons = [] if has_natten else ['not installed']
    monkeypatch.setattr(BACKENDS['natten'], 'unsupported_reasons', lambda *_: reasons)
    with FakeTensorMode():
        query = torch.empty(1, 9, 9, 1, 32, device='cuda')
        bias = torch.empty(1, 13, 13, device='cuda')
        assert choose_backend('auto', query, bias, (7, 7)) == 'triton'
        assert choose_backend('auto', query, None, (7, 7)) == 'triton'
        beyond = choose_backend('auto', query, None, (15, 15))
        assert beyond == ('natten' if has_natten else 'portable')


def launch_without_a_gpu():
    """Runs the kernels up to the GPU's driver, which is replaced.

    Returns:
        The names of the kernels that would have been launched.
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    launched = []

    class Launcher:
        def __init__(self, source, metadata):
            self.name = source.fn.__name__

        def __call__(self, *arguments):
            launched.append(self.name)

    class Driver:
        launcher_cls = Launcher

        class Utils:
            load_binary = staticmethod(lambda *_: (object(), object(), 0, 0, 1024))
            unload_module = staticmethod(lambda *_: None)
            get_device_properties = staticmethod(lambda _: {'max_shared_mem': 100 * 1024})

        utils = Utils
        get_current_device = get_current_stream = lambda *_: 0

        def get_current_target(self):
            return GPUTarget('cuda', 80, 32)

    driver.set_active(Driver())
    from nat_mm.ops.backends.triton.launch import run_backward, run_forward

    query, key, value = torch.zeros(1, 9, 11, 3, 1, 24, dtype=torch.float16).unbind(3)
    options = ((3, 5), (2, 1), 0.5)
    output, statistics = run_forward(query, key, value, None, *options)
    expanded = torch.ones((), dtype=torch.float16).expand(output.shape)
    run_backward(expanded, query, key, value, None, output, statistics, *options)
    return launched


def test_launches_are_what_triton_can_compile():
    """Triton turns arguments that are 1 or None into constants: here, one head and no bias."""
    launched = run_alone(launch_without_a_gpu)
    assert launched == ['na2d_fwd_kernel', 'na2d_bwd_q_kernel', 'na2d_bwd_kv_kernel']


def measure(target, cells, counted):
    """Returns each kernel's resources, its loops' instructions where they have bounds, and whether
    it multiplies by matrix instructions.
    """
    from benchmarks import gpu_resources as resources

    found = []
    for kernel, *case in cells:
        head_dim, kernel_size, dtype = case
        options = dict(head_dim=head_dim, kernel_size=kernel_size, dtype=getattr(torch, dtype))
        compiled = resources.compile_kernel(kernel, target, **options)
        has_bounds = counted and tuple(case) == GPU_CASES[0]
        loops = resources.loop_instructions(compiled) if has_bounds else None
        kind = resources.KINDS.get(target, 'nvidia')
        multiplies = dtype != 'float32' or float32_precision(kind, head_dim) != 'ieee'
        found.append((tuple(resources.measure_resources(compiled)), loops, multiplies))
    return found


EVERY_KERNEL = [(kernel, *options) for kernel in KERNELS for options in GPU_CASES]
CELLS = {
    'sm_80': EVERY_KERNEL,
    'sm_90': EVERY_KERNEL,
    'sm_100': [('forward', 32, 7, 'float32'), ('keys', 32, 7, 'bfloat16')],
    'sm_120': [('forward', 32, 7, 'float32'), ('queries', 32, 7, 'bfloat16')],
    'gfx942': EVERY_KERNEL,
}


@pytest.mark.parametrize('target', CELLS)
def test_kernels_fit_their_gpu(target):
    """Runs in a separate process, where Triton compiles and does not interpret."""
    counted = target in INSTRUCTIONS and version('triton').startswith('3.8.')
    found = run_alone(measure, target, CELLS[target], counted)
    for cell, (resources, loops, multiplies) in zip(CELLS[target], found, strict=True):
        registers, spills, shared_memory, matrix_instructions = resources
        case = f'{cell}: {registers} registers'
        assert spills <= SPILLS.get((target, *cell), 0), case
        assert shared_memory < 100 * 1024, case
        assert matrix_instructions > 0 or not multiplies, case
        if loops is not None:
            bounds = INSTRUCTIONS[target][cell[0]]
            assert all(mine <= most for mine, most in zip(loops, bounds, strict=True)), loops
