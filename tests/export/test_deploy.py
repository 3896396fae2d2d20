"""Tests the C++ program that docs/deploy.md shows."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nat_mm.export.verification import generated_images, onnxruntime_runtime
from tests.docs.blocks import read_blocks
from tests.export.models import write_small_segmentor


@pytest.mark.skipif(shutil.which('g++') is None, reason='there is no g++')
def test_cpp(tmp_path: Path) -> None:
    openvino = pytest.importorskip('openvino')
    folder = Path(openvino.__path__[0])
    (library,) = (folder / 'libs').glob('libopenvino.so.*')
    (block,) = (each for each in read_blocks('docs/deploy.md') if each.language == 'cpp')
    (tmp_path / block.title).write_text(block.text)
    subprocess.run(
        ['g++', '-std=c++17', block.title, '-o', 'segment', f'-I{folder / "include"}', library]
        + [f'-Wl,-rpath,{folder / "libs"}'],
        check=True,
        cwd=tmp_path,
    )
    write_small_segmentor(tmp_path / 'segmentor.onnx')
    (image,) = generated_images(((60, 90),))
    (tmp_path / 'pixels.bgr').write_bytes(image.tobytes())
    labels = onnxruntime_runtime(tmp_path / 'segmentor.onnx')(image)['labels']
    printed = subprocess.run(
        ['./segment', 'segmentor.onnx', 'pixels.bgr', '60', '90'],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout
    counts = zip(*np.unique(labels, return_counts=True), strict=True)
    assert printed.splitlines() == [f'{label}: {count}' for label, count in counts]
