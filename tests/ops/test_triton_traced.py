"""Tests that torch.compile sees the Triton kernels instead of an operator.

It cannot trace kernels that are interpreted, so these tests run in processes where Triton would
compile, and interpret only what is launched.
"""

import functools

import pytest
import torch
from torch import nn

from nat_mm.ops import neighborhood_attention_2d
from tests.ops.cases import Case, make_inputs, run, with_gradients
from tests.ops.interpretation import interpret_launches, quick_interpreter
from tests.processes import run_alone

pytest.importorskip('triton', reason='PyTorch without Triton')

CASES = {
    'float32': (Case(9, 11, 3), dict(dtype=torch.float32)),
    'dilated': (Case(17, 6, (3, 5), (2, 1)), dict(dtype=torch.float32)),  # has idle programs
    'bfloat16': (Case(8, 9, 3), dict(dtype=torch.bfloat16, batch=2, bias_dtype=torch.float32)),
    'nobias': (Case(7, 8, 7), dict(dtype=torch.float32, bias=False)),
}
WRITTEN = [
    ('na2d_fwd_kernel', {'output', 'statistics'}),
    ('na2d_bwd_q_kernel', {'delta', 'grads', 'partial_tables'}),
    ('na2d_bwd_kv_kernel', {'grads'}),
    ('na2d_bwd_bias_kernel', {'grad_bias'}),
]
"""What each kernel writes. Compiled graphs copy what PyTorch believes to be written."""
SIZES = [(6, 9), (9, 6), (8, 8), (5, 17)]


class Recorder:
    """A compiler that changes nothing, but lists what the graphs of both passes call.

    Attributes:
        kernels: Names of kernels, and of the tensors that they write.
        operators: Names of operators.
    """

    def __init__(self):
        self.graphs = 0
        self.kernels = []
        self.operators = []

    def compile(self, function, **options):
        from functorch.compile import min_cut_rematerialization_partition
        from torch._dynamo.backends.common import aot_autograd

        backend = aot_autograd(
            fw_compiler=self.record,
            bw_compiler=self.record,
            partition_fn=min_cut_rematerialization_partition,
        )
        return torch.compile(function, backend=backend, fullgraph=True, **options)

    def record(self, graph, _):
        from functorch.compile import make_boxed_func
        from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

        self.graphs += 1
        for node in graph.graph.nodes:
            if 'triton_kernel_wrapper' in str(node.target):
                kernel = kernel_side_table.get_kernel(node.kwargs['kernel_idx'])
                written = set(node.kwargs['tensors_to_clone'])
                self.kernels.append((kernel.fn.__name__, written))
            elif node.op == 'call_function':
                self.operators.append(str(node.target))
        return make_boxed_func(graph.forward)


def attend(query, key, value, bias, **options):
    return neighborhood_attention_2d(query, key, value, bias=bias, backend='triton', **options)


def compile_and_compare(name):
    """Returns whether a compiled call gives the same bits, and what it calls."""
    interpret_launches()
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    case, options = CASES[name]
    inputs = make_inputs(case, **{'batch': 1, 'heads': 2, 'head_dim': 8, **options})
    function, recorder = functools.partial(attend_to_case, case), Recorder()
    with quick_interpreter():
        # Compiled first, since Triton 3.5 cannot trace any more once it has interpreted something.
        compiled = with_gradients(recorder.compile(function), inputs)
        eager = with_gradients(function, inputs)
    return list(map(torch.equal, compiled, eager)), recorder.kernels, recorder.operators


def attend_to_case(case, *tensors):
    return run(case, 'triton', *tensors)


@pytest.mark.parametrize('name', CASES)
def test_compiled_graphs_launch_the_kernels(name):
    same, kernels, operators = run_alone(compile_and_compare, name)
    has_bias = name != 'nobias'
    assert all(same)
    assert len(same) == 4 + has_bias
    expected = WRITTEN if has_bias else WRITTEN[:-1]
    assert [kernel for kernel, _ in kernels] == [kernel for kernel, _ in expected]
    for (_, found), (_, written) in zip(kernels, expected, strict=True):
        assert found == (written if has_bias else written - {'partial_tables'})
    assert not [name for name in operators if 'na2d' in name or 'clone' in name]
    assert ('aten.new_zeros.default' in operators) == (name == 'dilated')


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.bias = nn.Parameter(torch.randn(2, 5, 5))

    def forward(self, x):
        query, key, value = self.qkv(x).view(*x.shape[:3], 3, 2, 8).unbind(3)
        options = dict(kernel_size=3, dilation=(1, 2))
        return attend(query, key, value, self.bias, **options)


def compile_for_all_sizes():
    """Returns whether a compiled layer gives the same bits for maps of all sizes."""
    interpret_launches()
    torch.manual_seed(0)
    layer, recorder = Layer(), Recorder()
    compiled = recorder.compile(layer, dynamic=True)

    def differentiate(function, x):
        output = function(x)
        return output, *torch.autograd.grad(output.square().sum(), list(layer.parameters()))

    same = []
    with quick_interpreter():
        for height, width in SIZES:
            x = torch.randn(1, height, width, 16)
            pairs = zip(differentiate(compiled, x), differentiate(layer, x), strict=True)
            same += [torch.equal(mine, its) for mine, its in pairs]
    from nat_mm.ops.backends.triton import launch

    kept = [entry[2][0] for entry in launch._PREPARED]
    return same, recorder.graphs, recorder.operators, kept


def test_one_graph_launches_the_kernels_on_maps_of_all_sizes():
    same, graphs, operators, kept = run_alone(compile_for_all_sizes)
    assert all(same)
    assert graphs == 2
    assert not [name for name in operators if 'na2d' in name or 'clone' in name]
    assert len(kept) == 3 * len(SIZES)
    assert all(type(length) is int for shape in kept for length in shape)


def export_layer():
    """Returns the operators of an exported layer."""
    interpret_launches()
    exported = torch.export.export(Layer().eval(), (torch.randn(1, 6, 6, 16),))
    graphs = [exported.graph, exported.run_decompositions().graph]
    return [[str(node.target) for node in graph.nodes] for graph in graphs]


def test_exported_programs_keep_the_operator():
    for names in run_alone(export_layer):
        assert [name for name in names if 'triton' in name] == ['nat_mm.na2d_triton.default']


def test_interpreted_kernels_stay_in_their_operator():
    case = Case(3, 4, 3)
    inputs = make_inputs(case, batch=1, heads=1, dtype=torch.float32)
    recorder = Recorder()

    def attend_to_case(*tensors):
        return run(case, 'triton', *tensors)

    actual = with_gradients(recorder.compile(attend_to_case), inputs)
    torch.testing.assert_close(actual, with_gradients(attend_to_case, inputs), rtol=0, atol=0)
    assert recorder.kernels == []
    assert [name for name in recorder.operators if 'na2d' in name] == [
        'nat_mm.na2d_triton.default',
        'nat_mm.na2d_triton_backward.default',
    ]


def names_of_known_kernels():
    import torch._functorch._aot_autograd.autograd_cache

    kernels = torch._library.triton.get_triton_kernels_for_op('nat_mm::na2d_triton')
    return [kernel.__name__ for kernel in kernels]


def test_caches_of_graphs_know_the_kernels():
    """Otherwise, PyTorch would reuse a graph of an older version's kernels."""
    assert run_alone(names_of_known_kernels) == [name for name, _ in WRITTEN]
