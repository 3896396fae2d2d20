"""Tests that ``compile`` in a config does not change training."""

import pytest
import torch
from torch._dynamo.utils import counters

from tests.training.tiny_run import train_tiny

OPTIMIZER = dict(
    optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1),
    # Each parameter gets its own group.
    paramwise_cfg=dict(norm_decay_mult=0.0),
)


def train_compiled(folder):
    """Trains as with mmengine's `compile`, but independently of the machine's compilers."""
    torch._dynamo.reset()
    return train_tiny(folder, optim_wrapper=OPTIMIZER, compile=dict(backend='eager'))


@pytest.fixture(autouse=True)
def forget_compiled_code():
    yield
    torch._dynamo.reset()


def test_weights_are_those_without_it(tmp_path):
    compiled = train_compiled(tmp_path / 'compiled')
    assert counters['stats']['unique_graphs'] > 0
    plain = train_tiny(tmp_path / 'plain', optim_wrapper=OPTIMIZER)
    found, expected = (run.model.state_dict() for run in (compiled, plain))
    torch.testing.assert_close(found, expected)
