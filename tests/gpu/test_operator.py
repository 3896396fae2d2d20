"""Tests every backend on a GPU against the reference in float64: ``make test-gpu``."""

import os
import re

import pytest
import torch

from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS, choose_backend
from tests.ops.cases import Case, make_inputs, outcome, run, with_gradients

if not torch.cuda.is_available():
    pytest.skip('no GPU was found', allow_module_level=True)
if os.environ.get('TRITON_INTERPRET') == '1':
    pytest.skip('Triton interprets in this process: make test-gpu', allow_module_level=True)

DEVICE = 'cuda'
NAMES = ('triton', 'natten', 'portable')
LARGEST_ERROR = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
NATTEN_FLOAT32_ERROR = 3e-3
"""NATTEN may multiply float32 numbers in TF32."""
EVERY_DTYPE = [Case(29, 31, 7), Case(50, 84, 7, 2)]
BFLOAT16 = [
    Case(3, 3, 3),
    Case(13, 10, 5),
    Case(19, 26, (13, 9)),
    Case(40, 41, 13),
    Case(64, 66, 11, 5),
    Case(21, 10, (7, 5), (3, 2)),
    Case(12, 33, (3, 11), (4, 3)),
]
SWEEP = [(case, dtype) for case in EVERY_DTYPE for dtype in LARGEST_ERROR]
SWEEP += [(case, torch.bfloat16) for case in BFLOAT16]
SWEEP += [(Case(40, 41, 13), torch.float32)]


def on_gpu(case, **options):
    inputs = make_inputs(case, **{'head_dim': 32, **options})
    return [None if tensor is None else tensor.to(DEVICE) for tensor in inputs]


def needs(name, inputs, case):
    reasons = BACKENDS[name].unsupported_reasons(inputs[0], inputs[3], case.kernel_pair)
    if reasons:
        pytest.skip(f'{name}: {"; ".join(reasons)}')


def check(case, name, inputs, largest=None):
    needs(name, inputs, case)
    exact = outcome(case, 'reference', [None if t is None else t.double() for t in inputs])
    found = outcome(case, name, inputs)
    if largest is None:
        largest = LARGEST_ERROR[inputs[0].dtype]
        if name == 'natten' and inputs[0].dtype == torch.float32:
            largest = NATTEN_FLOAT32_ERROR
    tensors = ('output', 'query', 'key', 'value', 'bias')
    for tensor, mine, its in zip(tensors, found, exact, strict=False):
        assert float((mine.double() - its).norm() / its.norm()) < largest, tensor


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
@pytest.mark.parametrize(
    ('case', 'dtype'), SWEEP, ids=lambda v: v.name if isinstance(v, Case) else str(v)[6:]
)
@pytest.mark.parametrize('name', NAMES)
def test_output_and_gradients(name, case, dtype, bias):
    if not bias and case not in EVERY_DTYPE:
        pytest.skip('windows and dilations are tried with a bias')
    check(case, name, on_gpu(case, dtype=dtype, bias=bias, bias_dtype=torch.float32))


@pytest.mark.parametrize('head_dim', [16, 24, 64, 128])
@pytest.mark.parametrize('name', NAMES)
def test_head_dims(name, head_dim):
    case = Case(17, 18, 7)
    check(case, name, on_gpu(case, dtype=torch.float16, head_dim=head_dim))


@pytest.mark.parametrize('name', NAMES)
def test_any_strides(name):
    case = Case(14, 15, 7)
    inputs = on_gpu(case, dtype=torch.float16)
    odd = [t.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0) for t in inputs[:3]]
    check(case, name, [*odd, inputs[3].mT.contiguous().mT])


def test_tf32_where_pytorch_allows_it():
    case = Case(29, 31, 7)
    inputs = on_gpu(case, dtype=torch.float32)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = 'tf32'
        check(case, 'triton', inputs, largest=NATTEN_FLOAT32_ERROR)
    finally:
        matmul.fp32_precision = before


def test_triton_gives_the_same_bits_again():
    case = Case(50, 84, 7, 2)
    inputs = on_gpu(case, dtype=torch.bfloat16)
    needs('triton', inputs, case)
    first, second = (outcome(case, 'triton', inputs) for _ in range(2))
    assert all(torch.equal(mine, its) for mine, its in zip(first, second, strict=True))


def test_tiles_by_trial(monkeypatch):
    monkeypatch.setenv('NAT_MM_TRITON_AUTOTUNE', '1')
    case = Case(50, 84, 7)
    inputs = on_gpu(case, dtype=torch.bfloat16)
    check(case, 'triton', inputs)
    first, second = (outcome(case, 'triton', inputs) for _ in range(2))
    assert all(torch.equal(mine, its) for mine, its in zip(first, second, strict=True))


def test_in_a_cuda_graph():
    """Forward and backward are replayed on other numbers than those recorded."""
    case = Case(29, 31, 7)
    inputs = [t.requires_grad_() for t in on_gpu(case, dtype=torch.bfloat16)]
    needs('triton', inputs, case)

    def differentiate():
        output = run(case, 'triton', *inputs)
        return output.detach(), *torch.autograd.grad(output, inputs, torch.ones_like(output))

    side = torch.cuda.Stream()  # compiles the kernels, which a recording must not do
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        differentiate()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = differentiate()
    with torch.no_grad():
        for tensor in inputs:
            tensor.mul_(0.5)
    graph.replay()
    for mine, its in zip(recorded, differentiate(), strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize('name', ['triton', 'portable'])
def test_compiled(name):
    case = Case(29, 31, 7)
    inputs = on_gpu(case, dtype=torch.float32)
    needs(name, inputs, case)

    def attend(query, key, value, bias):
        return neighborhood_attention_2d(query, key, value, kernel_size=7, bias=bias, backend=name)

    compiled = with_gradients(torch.compile(attend, fullgraph=True), inputs)
    for mine, its in zip(compiled, with_gradients(attend, inputs), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dynamic', [False, True], ids=['static', 'dynamic'])
def test_compiled_code_launches_the_kernels(dynamic):
    """They are launched instead of the operator, on maps of all sizes if the graph is dynamic."""
    from torch._inductor.utils import run_and_get_code

    def attend(packed, bias):
        query, key, value = packed.unbind(3)
        return run(Case(0, 0, 7), 'triton', query, key, value, bias)

    sets = []
    for case in (Case(29, 31, 7), Case(33, 20, 7)):
        query, key, value, bias = on_gpu(case, dtype=torch.bfloat16)
        needs('triton', (query, key, value, bias), case)
        sets.append([torch.stack((query, key, value), 3), bias])
    compiled = torch.compile(attend, fullgraph=True, dynamic=dynamic)
    # This resets the compiler, so all sizes have to come in one call.
    outputs, generated = run_and_get_code(lambda: [with_gradients(compiled, x) for x in sets])
    for mine, inputs in zip(outputs, sets, strict=True):
        for found, expected in zip(mine, with_gradients(attend, inputs), strict=True):
            torch.testing.assert_close(found, expected)
    assert len(generated) == (2 if dynamic else 4)
    called = ' '.join(code[code.index('def call(') :] for code in generated)
    assert 'torch.ops.nat_mm' not in called
    kernels = re.findall(r'(\w+)_kernel_\d+\.run\(', called)
    expected = ['na2d_fwd', 'na2d_bwd_q', 'na2d_bwd_kv', 'na2d_bwd_bias']
    assert kernels == (expected if dynamic else 2 * expected)


def test_autocast():
    case = Case(29, 31, 7)
    inputs = on_gpu(case, dtype=torch.float32)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        output = run(case, 'auto', *inputs)
    assert output.dtype == torch.bfloat16
    exact = run(case, 'reference', *inputs)
    assert float((output - exact).norm() / exact.norm()) < LARGEST_ERROR[torch.bfloat16]


def test_auto_takes_triton():
    query, _, _, bias = on_gpu(Case(9, 9, 7), dtype=torch.bfloat16)
    assert {choose_backend('auto', query, b, (7, 7)) for b in (None, bias)} == {'triton'}


def test_offsets_beyond_32_bits():
    """In a batch of more than 2**31 numbers, the last image gives the same output as alone."""
    batch, size = 520, 256
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip('needs 24 GiB of free memory')
    shape = (batch, size, size, 3, 2, 32)
    query, key, value = torch.zeros(shape, dtype=torch.bfloat16, device=DEVICE).unbind(3)
    case = Case(size, size, 7)
    last = on_gpu(case, batch=1, dtype=torch.bfloat16, bias=False)[:3]
    for whole, image in zip((query, key, value), last, strict=True):
        whole[-1:] = image
    output = run(case, 'triton', query, key, value, None)
    assert torch.equal(output[-1:], run(case, 'triton', *last, None))
    assert not output[:-1].any()


def test_a_gpu_that_is_not_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip('needs two GPUs')
    case = Case(9, 11, 3)
    inputs = [t.to('cuda:1') for t in make_inputs(case, dtype=torch.float32)]
    actual = run(case, 'triton', *inputs)
    torch.testing.assert_close(actual, run(case, 'reference', *inputs))
