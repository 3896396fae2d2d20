"""Tests the conversion of any module to ONNX."""

import pytest
import torch
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import slice_split_rule
from torch import nn

from nat_mm.export.program import for_export, to_onnx


def test_rule_that_reads_the_whole_graph_for_each_node_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = rewriter._DEFAULT_REWRITE_RULES
    assert slice_split_rule in rules  # otherwise there is nothing left to leave out
    assert not slice_split_rule._matcher.pattern.has_single_output_node  # this makes it slow
    monkeypatch.setattr(slice_split_rule, 'try_rewrite', lambda *_, **__: pytest.fail('was tried'))
    model = to_onnx(
        for_export(nn.Conv2d(3, 4, 3)),
        [torch.zeros(1, 3, 6, 8)],
        input_names=['image'],
        output_names=['map'],
        dynamic_axes={2: 'height', 3: 'width'},
    )
    assert [node.op_type for node in model.graph.node] == ['Conv']
    assert rewriter._DEFAULT_REWRITE_RULES is rules
