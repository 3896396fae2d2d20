"""Tests the operator's translation to ONNX, exported for one size and run at others."""

import logging

import onnxruntime
import pytest
import torch
from torch import nn

from nat_mm.ops.onnx import translations
from tests.ops.cases import Case, make_inputs, run

# The operators of the exported graph with a bias, after optimization. TensorRT supports all.
OPERATORS = {
    *('Add', 'And', 'Concat', 'Div', 'Gather', 'GreaterOrEqual', 'Less', 'MatMul', 'Max', 'Min'),
    *('Mul', 'Range', 'Reshape', 'Shape', 'Slice', 'Softmax', 'Split', 'Squeeze', 'Sub'),
    *('Transpose', 'Unsqueeze', 'Where'),
}

# A window, whether there is a bias, and sizes: exactly one window, one more, residue classes of
# unequal lengths, and several tiles.
EXPORTS = {
    'plain': (Case(7, 7, 7), True, [(2, 7, 7), (1, 8, 21), (3, 29, 14)]),
    'dilated': (Case(9, 9, 3, 3), True, [(2, 9, 10), (1, 26, 40), (1, 12, 11)]),
    'uneven': (Case(21, 10, (7, 5), (3, 2)), False, [(1, 21, 10), (2, 22, 13), (1, 53, 44)]),
}


class Twice(nn.Module):
    """Two layers on one map."""

    def __init__(self, case, bias):
        super().__init__()
        self.case = case
        self.bias = bias if bias is None else nn.Buffer(bias)

    def forward(self, projected, backend='portable'):
        query, key, value = projected.unbind(3)
        query = run(self.case, backend, query, key, value, self.bias)
        return run(self.case, backend, query, key, value, self.bias)


@pytest.mark.parametrize('name', EXPORTS)
def test_onnxruntime_computes_the_operator_at_any_size(name, tmp_path):
    case, with_bias, sizes = EXPORTS[name]
    *_, bias = make_inputs(case, dtype=torch.float32, bias=with_bias)
    layers = Twice(case, bias).eval()
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    program = torch.onnx.export(
        layers,
        (torch.randn(2, case.height + 20, case.width + 30, 3, 2, 4),),
        dynamo=True,
        opset_version=18,
        input_names=['projected'],
        dynamic_shapes=({0: 'batch', 1: 'height', 2: 'width'},),
        custom_translation_table=translations(),
        verbose=False,
    )
    program.save(tmp_path / 'layers.onnx')
    nodes = list(program.model.graph)
    assert {node.op_type for node in nodes} <= OPERATORS
    assert {node.domain for node in nodes} == {''}
    # Both layers share the tables of the map: a range of tiles and of tokens for each axis.
    assert [node.op_type for node in nodes].count('Range') == 4
    session = onnxruntime.InferenceSession(tmp_path / 'layers.onnx')
    for batch, height, width in sizes:
        projected = torch.randn(batch, height, width, 3, 2, 4)
        (found,) = session.run(None, {'projected': projected.numpy()})
        expected = layers(projected, backend='reference')
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
