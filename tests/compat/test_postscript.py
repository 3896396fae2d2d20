"""Tests that no file that poses as an image makes Pillow run Ghostscript."""

from pathlib import Path

import mmcv
import pytest
from PIL import EpsImagePlugin, Image, UnidentifiedImageError

import nat_mm
from nat_mm.compat.postscript import open_image

PROGRAM = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n'
OPENS_IMAGES = {'compat/postscript.py', 'inference/image_sizes.py', 'demo/photographs.py'}


class GhostscriptError(Exception):
    pass


@pytest.fixture
def program(tmp_path, monkeypatch):
    """An EPS file that is called a PNG."""

    def run(*_args, **_kwargs):
        raise GhostscriptError

    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', run)
    path = tmp_path / 'labels.png'
    path.write_bytes(PROGRAM)
    return path


def load_with_mmcv(path: Path):
    return mmcv.imfrombytes(path.read_bytes(), flag='unchanged', backend='pillow')


def test_mmcv(program, tmp_path):
    with pytest.raises(UnidentifiedImageError):
        load_with_mmcv(program)
    Image.new('L', (8, 6), 7).save(tmp_path / 'sound.png')
    assert load_with_mmcv(tmp_path / 'sound.png').tolist() == [[7] * 8] * 6


def test_own_reader(program):
    with pytest.raises(GhostscriptError), Image.open(program) as image:
        image.load()
    with pytest.raises(UnidentifiedImageError):
        open_image(program)


def test_nothing_else_opens_images():
    """Except the reader of sizes, which names its formats, and the demo, for its own files."""
    root = Path(nat_mm.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob('*.py')
        if 'Image.open(' in path.read_text(encoding='utf-8')
    }
    assert found == OPENS_IMAGES
