"""Tests the import hooks in fresh interpreters that do not read site-packages' .pth files."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed
from mmengine.utils.dl_utils import mmcv_full_available

import nat_mm_startup

MODULE = Path(nat_mm_startup.__file__)
START_UP_LINE = (Path(__file__).parents[2] / 'nat_mm_startup.pth').read_text()
INSTALLED = "any(type(finder).__module__ == 'nat_mm_startup' for finder in sys.meta_path)"


@pytest.fixture
def folder(tmp_path):
    """An import path that contains only nat_mm_startup besides the standard library."""
    (tmp_path / MODULE.name).write_text(MODULE.read_text())
    return tmp_path


def run_python(code, folder, **environment):
    return subprocess.run(
        [sys.executable, '-S', '-c', code],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(folder), **environment},
        capture_output=True,
        text=True,
    )


def write_package(folder, name, **modules):
    (folder / name).mkdir()
    for module, code in modules.items():
        (folder / name / f'{module}.py').write_text(code)


def test_start_up_line_is_one_line_that_python_executes():
    assert START_UP_LINE.startswith('import ')
    assert START_UP_LINE.count('\n') == 1


def test_start_up_imports_nothing_heavy(folder):
    count = 'before = set(sys.modules)', 'print(*set(sys.modules) - before)'
    result = run_python(f'import sys; {count[0]}\n{START_UP_LINE}{count[1]}', folder)
    imported = {name.split('.')[0] for name in result.stdout.split()}
    assert 'nat_mm_startup' in imported, result.stderr
    assert imported - {'nat_mm_startup'} <= sys.stdlib_module_names


@pytest.mark.parametrize(('setting', 'installed'), [('', True), ('0', True), ('1', False)])
def test_start_up_can_be_disabled(folder, setting, installed):
    result = run_python(
        f'import sys\n{START_UP_LINE}print({INSTALLED})', folder, NAT_MM_NO_STARTUP=setting
    )
    assert result.stdout.strip() == str(installed), result.stderr


def test_start_up_line_is_harmless_without_its_module(tmp_path):
    result = run_python(START_UP_LINE, tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_compiled_operators_win(folder):
    write_package(folder, 'mmcv', __init__='', _ext='compiled = True')
    write_package(folder, 'nat_mm', __init__='raise SystemExit("imported nat_mm")')
    result = run_python(f'{START_UP_LINE}import mmcv._ext; print(mmcv._ext.compiled)', folder)
    assert result.stdout.strip() == 'True', result.stderr


def test_without_nat_mm_the_operators_stay_missing(folder):
    write_package(folder, 'mmcv', __init__='')
    result = run_python(f'{START_UP_LINE}import mmcv._ext', folder)
    assert "No module named 'mmcv._ext'" in result.stderr


def test_callback_runs_after_the_module_and_only_once(folder):
    write_package(folder, 'package', __init__='', module='value = 1')
    code = """
import nat_mm_startup, sys
nat_mm_startup.install()
nat_mm_startup.install()
nat_mm_startup.when_imported('package.module', lambda module: print('called', module.value))
import package.module, package
print(sum(type(finder).__module__ == 'nat_mm_startup' for finder in sys.meta_path))
nat_mm_startup.when_imported('package.module', lambda module: print('late', module.value))
"""
    result = run_python(code, folder)
    assert result.stdout.split() == ['called', '1', '3', 'late', '1'], result.stderr


def test_an_installed_panopticapi_wins(folder):
    write_package(folder, 'panopticapi', __init__='installed = True')
    write_package(folder, 'nat_mm', __init__='raise SystemExit("imported nat_mm")')
    result = run_python(f'{START_UP_LINE}import panopticapi; print(panopticapi.installed)', folder)
    assert result.stdout.strip() == 'True', result.stderr


def test_without_nat_mm_panopticapi_stays_missing(folder):
    result = run_python(f'{START_UP_LINE}import panopticapi', folder)
    assert "No module named 'panopticapi'" in result.stderr


@pytest.mark.parametrize('wanted', [True, False])
def test_nat_mm_is_imported_before_multimodal_models(wanted, folder):
    write_package(folder, 'nat_mm', __init__='print("imported nat_mm")')
    write_package(folder, 'mmpretrain', __init__='')
    dependency = f'WITH_MULTIMODAL = {wanted}'
    write_package(folder / 'mmpretrain', 'utils', __init__='', dependency=dependency)
    result = run_python(START_UP_LINE + 'from mmpretrain.utils import dependency', folder)
    assert result.stdout == 'imported nat_mm\n' * wanted, result.stderr


LOADER = """
class CheckpointLoader:
    @classmethod
    def load_checkpoint(cls, filename):
        return 'read ' + filename
"""
REPAIR = """
from mmengine.runner.checkpoint import CheckpointLoader
load = CheckpointLoader.load_checkpoint
CheckpointLoader.load_checkpoint = staticmethod(lambda filename: 'safely ' + load(filename))
"""


@pytest.mark.parametrize('first', ['', 'import nat_mm; '], ids=['by the call', 'before it'])
def test_nat_mm_is_imported_before_a_checkpoint_is_read(first, folder):
    write_package(folder, 'nat_mm', __init__=REPAIR)
    write_package(folder, 'mmengine', __init__='')
    write_package(folder / 'mmengine', 'runner', __init__='', checkpoint=LOADER)
    code = f'{first}from mmengine.runner.checkpoint import CheckpointLoader as L; '
    read = 'print(L.load_checkpoint("a"), L.load_checkpoint("b"))'
    result = run_python(START_UP_LINE + code + read, folder)
    assert result.stdout == 'safely read a safely read b\n', result.stderr


def test_without_nat_mm_checkpoints_are_read_as_ever(folder):
    write_package(folder, 'mmengine', __init__='')
    write_package(folder / 'mmengine', 'runner', __init__='', checkpoint=LOADER)
    code = 'from mmengine.runner.checkpoint import CheckpointLoader as L; '
    result = run_python(START_UP_LINE + code + 'print(L.load_checkpoint("a"))', folder)
    assert result.stdout == 'read a\n', result.stderr


def test_mmcv_ops_can_be_imported_before_nat_mm():
    code = 'import nat_mm_startup; nat_mm_startup.start(); import mmcv.ops'
    environment = {**os.environ, 'PYTHONPATH': str(MODULE.parent)}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_served_operators_look_like_an_ordinary_module():
    assert importlib.util.find_spec('mmcv._ext') is not None
    assert mmcv_full_available()


@pytest.mark.parametrize('package', ['nat_mm', 'mmseg'])
def test_config_packages_are_known(package):
    assert is_installed(MODULE2PACKAGE[package])


def test_bases_of_other_packages_are_found_without_reading_metafiles(tmp_path, monkeypatch):
    monkeypatch.setattr(config_utils, 'load', pytest.fail)
    (tmp_path / 'config.py').write_text("_base_ = 'mmdet::_base_/schedules/schedule_1x.py'")
    optimizer = Config.fromfile(tmp_path / 'config.py').optim_wrapper
    assert optimizer._scope_ == 'mmdet'


def test_base_that_another_package_lacks_is_named_by_mmengine(tmp_path):
    (tmp_path / 'config.py').write_text("_base_ = 'mmdet::_base_/schedules/schedule_9x.py'")
    with pytest.raises(FileNotFoundError, match=r'mmdet/\.mim/configs/.*schedule_9x\.py'):
        Config.fromfile(tmp_path / 'config.py')
