"""Tests that the host does no more than necessary to call the Triton kernels.

The kernels run in Triton's interpreter or not at all.
"""

import importlib.util
import threading
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nat_mm.ops import library, neighborhood_attention_2d
from nat_mm.ops.backends import triton as backend
from tests.ops.cases import Case, make_inputs, run

pytest.importorskip('triton', reason='PyTorch without Triton')

from triton.compiler import CompiledKernel

from nat_mm.ops.backends.triton import launch, problem
from nat_mm.ops.backends.triton.problem import LaunchProblem
from nat_mm.ops.backends.triton.tiles import choose_tiles

CASE = Case(9, 11, 3)
OPTIONS = dict(batch=1, heads=2, head_dim=8, dtype=torch.float16, bias_dtype=torch.float32)


class OperatorNames(TorchDispatchMode):
    """Records the names of PyTorch's operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def launched(monkeypatch):
    """The kernels that would be launched, with their arguments and options."""
    launches = []

    class Kernel:
        def __init__(self, name, arg_names):
            self.name = name
            self.arg_names = arg_names

        def __getitem__(self, grid):
            return lambda *arguments, **options: launches.append((self.name, arguments, options))

    kernels = {name: Kernel(name, kernel.arg_names) for name, kernel in launch.KERNELS.items()}
    monkeypatch.setattr(launch, 'KERNELS', kernels)
    monkeypatch.setattr(launch, '_PREPARED', {})
    return launches


def leaves(case=CASE, **options):
    inputs = make_inputs(case, **{**OPTIONS, **options})
    return [None if t is None else t.detach().requires_grad_() for t in inputs]


def forward_and_backward(case=CASE, **options):
    inputs = leaves(case, **options)
    output = run(case, 'triton', *inputs)
    grad_output = torch.ones_like(output)
    return torch.autograd.grad(output, [t for t in inputs if t is not None], grad_output)


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
def test_one_launch_per_kernel(launched, bias):
    forward_and_backward(bias=bias)
    expected = ['forward', 'queries', 'keys'] + ['bias'] * bias
    assert [name for name, *_ in launched] == expected


def test_nothing_is_worked_out_anew_for_a_problem_of_the_same_kind(launched, monkeypatch):
    forward_and_backward()
    first = list(launched)
    launched.clear()
    for name in ('make_constants', 'make_table_constants', 'choose_tiles'):
        monkeypatch.setattr(problem, name, pytest.fail)
    forward_and_backward(seed=1)
    assert [name for name, *_ in launched] == [name for name, *_ in first]
    for (_, mine, options), (_, its, others) in zip(launched, first, strict=True):
        assert options == others
        numbers = [value for value in mine if not isinstance(value, torch.Tensor)]
        assert numbers == [value for value in its if not isinstance(value, torch.Tensor)]


@pytest.mark.parametrize(
    ('case', 'options'),
    [
        (Case(9, 11, 5), {}),
        (Case(9, 11, 3, 2), {}),
        (Case(17, 11, 3), {}),
        (CASE, {'batch': 2}),
        (CASE, {'heads': 1}),
        (CASE, {'head_dim': 16}),
        (CASE, {'bias': False}),
        (CASE, {'dtype': torch.float32}),
    ],
    ids=['kernel size', 'dilation', 'map', 'batch', 'heads', 'head_dim', 'no bias', 'dtype'],
)
def test_problems_of_other_kinds_are_told_apart(launched, case, options):
    forward_and_backward()
    known = set(launch._PREPARED)
    forward_and_backward(case, **options)
    assert len(set(launch._PREPARED) - known) == 3


def test_tf32_is_looked_up_in_each_call(launched, monkeypatch):
    monkeypatch.setattr(launch.torch.version, 'hip', None)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for precision in ('ieee', 'tf32'):
            matmul.fp32_precision = precision
            forward_and_backward(dtype=torch.float32)
    finally:
        matmul.fp32_precision = before
    found = [options['PRECISION'] for *_, options in launched if 'PRECISION' in options]
    assert found == 3 * ['ieee'] + 3 * ['tf32']


@pytest.fixture
def compiled_launches(monkeypatch):
    """The launches of kernels that Triton has compiled, and of those that it compiles first."""
    launches = []

    class Compiled(CompiledKernel):
        module = None  # not loaded

        def __init__(self, arg_names):
            self.arg_names = arg_names

        def __getitem__(self, grid):
            return lambda *arguments: launches.append(('compiled', self.arg_names, arguments))

    class Kernel:
        def __init__(self, arg_names):
            self.arg_names = arg_names

        def __getitem__(self, grid):
            def start(*arguments, **options):
                launches.append(('kernel', arguments, options))
                return Compiled(self.arg_names)

            return start

    kernels = {name: Kernel(kernel.arg_names) for name, kernel in launch.KERNELS.items()}
    monkeypatch.setattr(launch, 'KERNELS', kernels)
    monkeypatch.setattr(launch, '_PREPARED', {})
    monkeypatch.setattr(launch.torch.version, 'hip', None)
    return launches


def attend_forward(tensors):
    query, key, value, bias = tensors
    launch.run_forward(query, key, value, bias, [3, 3], [1, 1], 0.5)


def test_what_triton_compiled_is_launched_directly(compiled_launches):
    """The constants follow the arguments in the order of the kernel's signature."""
    for _ in range(2):
        forward_and_backward()
    # The small kernel that sums bias tables is not worth it.
    firsts = [each for each in compiled_launches if each[0] == 'kernel' and 'HEAD_DIM' in each[2]]
    seconds = [each for each in compiled_launches if each[0] == 'compiled']
    assert len(seconds) == 3
    for (_, arguments, options), (_, arg_names, everything) in zip(firsts, seconds, strict=True):
        assert len(everything) == len(arg_names)
        found = dict(zip(arg_names[len(arguments) :], everything[len(arguments) :], strict=True))
        assert found == {name: options[name] for name in found}
        assert set(options) - set(found) <= {'num_warps', 'num_stages', 'maxnreg'}


def test_other_strides_alignments_and_dtypes_are_compiled_anew(compiled_launches):
    tensors = make_inputs(CASE, **OPTIONS)
    apart = torch.cat([torch.zeros(8, dtype=torch.float16), tensors[0].flatten()])
    moved = apart[1 : 1 + tensors[0].numel()].view(tensors[0].shape)
    assert moved.data_ptr() % 16
    other_strides = tensors[0].contiguous()
    variants = [
        tensors,
        (other_strides, *tensors[1:]),
        (moved, *tensors[1:]),
        (*tensors[:3], tensors[3].half()),
    ]
    for variant in variants:
        attend_forward(variant)
    assert [kind for kind, *_ in compiled_launches] == ['kernel'] * len(variants)
    for variant in variants:
        attend_forward(variant)
    assert [kind for kind, *_ in compiled_launches[len(variants) :]] == ['compiled'] * len(variants)


def test_what_triton_compiled_is_kept_for_few_strides(compiled_launches, monkeypatch):
    monkeypatch.setattr(launch, 'MOST_COMPILED', 3)
    _, key, value, bias = make_inputs(CASE, **OPTIONS)
    for extra in range(8):
        wide = torch.zeros(1, CASE.height, CASE.width, 2, 8 + 8 * extra, dtype=torch.float16)
        attend_forward((wide[..., :8], key, value, bias))
    (prepared,) = launch._PREPARED.values()
    assert 1 <= len(prepared.compiled) <= 3


def test_what_is_kept_is_bounded(launched, monkeypatch):
    monkeypatch.setattr(launch, 'MOST_PREPARED', 4)
    for height in range(9, 20):
        forward_and_backward(Case(height, 11, 3))
        assert len(launch._PREPARED) <= 4
    assert len(launched) == 4 * 11


def test_threads_get_the_launches_of_their_problems(launched, monkeypatch):
    """Each thread gets its own launches even while cached ones are evicted."""
    monkeypatch.setattr(launch, 'MOST_PREPARED', 2)
    errors = []

    def work(height):
        try:
            for _ in range(30):
                query, *_ = make_inputs(Case(height, 11, 3), **OPTIONS)
                problem = LaunchProblem(query, True, (3, 3), (1, 1), 1.0)
                tiles = choose_tiles(
                    'forward', kernel_size=(3, 3), head_dim=8, bytes_per_element=2, gpu='nvidia'
                )
                expected = problem.programs(tiles)
                assert launch._prepare('forward', problem).programs == expected
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(height,)) for height in (9, 17, 33, 65)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_only_what_the_kernels_write_is_allocated(launched):
    """Packed query, key and value are neither copied nor zeroed.

    Both passes read the bias as it is.
    """
    query, key, value, bias = make_inputs(CASE, **OPTIONS)
    options = ([3, 3], [1, 1], 0.5)
    with OperatorNames() as forward:
        output, statistics = launch.run_forward(query, key, value, bias, *options)
    assert Counter(forward.names) == {'empty_like': 1, 'new_empty': 1}
    with OperatorNames() as backward:
        launch.run_backward(
            torch.empty_like(output), query, key, value, bias, output, statistics, *options
        )
    assert Counter(name for name in backward.names if name != 'empty_like') == {
        'new_empty': 3,
    }


@pytest.mark.parametrize(
    ('size', 'dilation', 'idle'),
    [(16, 1, False), (17, 1, False), (16, 2, False), (17, 2, True), (33, 4, True), (30, 4, False)],
)
def test_tables_are_zeroed_where_programs_have_no_tokens(size, dilation, idle):
    """Tiles have 8 rows, so smaller residue classes need fewer of them."""
    tiles = choose_tiles(
        'queries', kernel_size=(3, 3), head_dim=8, bytes_per_element=2, gpu='nvidia'
    )
    assert tiles.rows == tiles.columns == 8
    query = torch.empty(1, size, 3 * dilation, 1, 8, dtype=torch.float16)
    problem = LaunchProblem(query, True, (3, 3), (dilation, dilation), 1.0)
    rows = [len(range(residue, size, dilation)) for residue in range(dilation)]
    assert (len({-(-length // 8) for length in rows}) > 1) == idle
    assert problem.has_idle_programs(tiles) == idle


def refuse(*_, **__):
    raise AssertionError('waits for the device')


def test_nothing_waits_for_the_device(launched, monkeypatch):
    """As in a CUDA graph, no tensor's numbers are read, and nothing is synchronized."""
    for name in ('item', 'tolist', 'cpu', 'numpy', '__bool__', '__float__', '__int__'):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    monkeypatch.setattr(torch.cuda, 'synchronize', refuse)
    with OperatorNames() as called:
        forward_and_backward()
    assert not {'_local_scalar_dense', 'equal', 'nonzero'} & set(called.names)
    assert len(launched) == 4


def test_a_replay_needs_no_more_than_the_first_call_left(launched):
    """No tensor is kept between calls, since a graph would have seen its numbers only once."""

    def tensors_in(value):
        if isinstance(value, torch.Tensor):
            return [value]
        values = value.values() if isinstance(value, dict) else value
        return sum(map(tensors_in, values), []) if isinstance(value, dict | tuple | list) else []

    forward_and_backward()
    assert launch._PREPARED
    assert tensors_in(list(launch._PREPARED.items())) == []


def through_dispatcher(monkeypatch):
    calls = []
    original = library._is_plain

    def spy(*tensors):
        plain = original(*tensors)
        calls.append(plain)
        return plain

    monkeypatch.setattr(library, '_is_plain', spy)
    return calls


def test_an_ordinary_call_goes_to_the_kernels_directly(launched, monkeypatch):
    plain = through_dispatcher(monkeypatch)
    forward_and_backward()
    with torch.no_grad():
        run(CASE, 'triton', *make_inputs(CASE, **OPTIONS))
    assert plain == [True, True, True]


@pytest.mark.parametrize(
    'context',
    [
        OperatorNames,
        lambda: torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
        lambda: torch.device('cpu'),
    ],
    ids=['mode', 'profiler', 'function mode'],
)
def test_who_looks_at_operators_sees_this_one(launched, monkeypatch, context):
    plain = through_dispatcher(monkeypatch)
    with context() as seen:
        forward_and_backward()
    # PyTorch hides function modes from the backward pass.
    assert plain == [False, isinstance(seen, torch.device)]
    if isinstance(seen, OperatorNames):
        assert [name for name in seen.names if name.startswith('na2d')] == [
            'na2d_triton',
            'na2d_triton_backward',
        ]
    if isinstance(seen, torch.profiler.profile):
        names = {event.name for event in seen.events()}
        assert {'nat_mm::na2d_triton', 'nat_mm::na2d_triton_backward'} <= names


def test_subclasses_of_tensors_see_the_operator(launched):
    class Watched(torch.Tensor):
        names = []

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.names.append(getattr(function, '__name__', ''))
            return super().__torch_function__(function, types, args, kwargs or {})

    query, key, value, bias = make_inputs(CASE, **OPTIONS)
    output = run(CASE, 'triton', query.as_subclass(Watched), key, value, bias)
    assert isinstance(output, Watched)
    assert any('na2d_triton' in name for name in Watched.names)


def test_kernels_run_without_autocast(launched, monkeypatch):
    seen = []
    run_forward, run_backward = launch.run_forward, launch.run_backward

    def spy(kernel):
        def spied(*arguments):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            seen.append(product.dtype)
            return kernel(*arguments)

        return spied

    monkeypatch.setattr(launch, 'run_forward', spy(run_forward))
    monkeypatch.setattr(launch, 'run_backward', spy(run_backward))
    with torch.autocast('cpu', torch.bfloat16):
        forward_and_backward()
    assert seen == [torch.float32, torch.float32]


def test_whether_triton_is_there_is_not_asked_while_tracing(monkeypatch):
    """PyTorch 2.9 to 2.11 cannot trace ``importlib.util.find_spec``; here, no version can."""
    find_spec = importlib.util.find_spec

    def refuse_tracing(name):
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()
        return find_spec(name)

    monkeypatch.setattr(importlib.util, 'find_spec', refuse_tracing)
    backend._find_installation_problem.cache_clear()

    def attend(query, key, value, bias):
        return neighborhood_attention_2d(
            query, key, value, kernel_size=3, bias=bias, backend='triton'
        )

    inputs = make_inputs(Case(3, 4, 3), batch=1, heads=1, dtype=torch.float32)
    compiled = torch.compile(attend, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(*inputs), attend(*inputs))


def test_a_missing_triton_is_a_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    backend._find_installation_problem.cache_clear()
    try:
        query, key, value, _ = make_inputs(CASE, **OPTIONS)
        with pytest.raises(ValueError, match='triton: triton is not installed'):
            neighborhood_attention_2d(query, key, value, kernel_size=3, backend='triton')
    finally:
        backend._find_installation_problem.cache_clear()
