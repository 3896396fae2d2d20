"""Tests the layers and the operator with nothing but PyTorch installed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import logging, sys
for name in ('cv2', 'mmcv', 'mmdet', 'mmengine', 'numpy', 'torchvision'):
    sys.modules[name] = None  # importing it raises ImportError
import torch
compiler = 'torch._dynamo' in sys.modules
from nat_mm.layers import NATLayer
print('imports the compiler:', ('torch._dynamo' in sys.modules) > compiler)
from benchmarks import gpu
from tests.ops import cases

logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
small = NATLayer(16, 2, kernel_size=3, drop_path_rate=0.5)
layer = NATLayer(16, 2, kernel_size=5, drop_path_rate=0.5)
layer.load_state_dict(small.state_dict())
x = torch.randn(2, 6, 7, 16, requires_grad=True)
layer(x).sum().backward()
print(tuple(x.grad.shape))
"""


def test_neither_openmmlab_nor_numpy_nor_torchvision_is_needed():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'imports the compiler: False',
        'attn.rpb: relative positional bias resized from kernel size 3 to 5 by bicubic '
        'interpolation',
        '(2, 6, 7, 16)',
    ]
