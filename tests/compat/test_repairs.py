"""Tests that repairs are active exactly where the installed versions are broken."""

import ast
import inspect
from importlib.machinery import ModuleSpec

import pytest

from nat_mm import compat
from nat_mm.compat import __main__ as command


@pytest.fixture
def install(monkeypatch):
    """Pretends that exactly these distributions are installed."""

    def pretend(**versions):
        def version(distribution):
            try:
                return versions[distribution.replace('-', '_')]
            except KeyError:
                raise compat.metadata.PackageNotFoundError from None

        monkeypatch.setattr(compat.metadata, 'version', version)

    return pretend


@pytest.mark.parametrize(
    ('versions', 'active', 'reason'),
    [
        ({'mmsegmentation': '1.2.2'}, True, 'mmseg 1.2.2 (broken in <1.4)'),
        ({'onedl_mmsegmentation': '1.4.2'}, False, 'mmseg 1.4.2 (broken in <1.4)'),
        ({}, False, 'mmseg is not installed'),
    ],
    ids=['broken', 'healed', 'absent'],
)
def test_one_version_decides(install, versions, active, reason):
    install(**versions)
    status = compat.find_status('seg_visualizer')
    assert (status.active, status.reason) == (active, reason)


@pytest.mark.parametrize(
    ('transformers', 'active'), [('4.55.4', False), ('4.56.0', True), ('5.24.0', True)]
)
def test_all_versions_must_be_broken(install, transformers, active):
    install(mmpretrain='1.2.0', transformers=transformers)
    status = compat.find_status('multimodal')
    assert status.active == active
    assert f'transformers {transformers}' in status.reason


def test_newer_releases_get_no_repair_but_keep_their_guards(install):
    install(mmengine='1.0.0', torch='3.0.0', mmdet='4.0.0', mmsegmentation='2.0.0')
    active = {name for name in compat.REPAIRS if compat.find_status(name).active}
    assert active == {'checkpoint_configs', 'safe_checkpoints'}


def test_a_compiled_mmcv_goes_first(monkeypatch):
    stand_in = compat.load('mmcv_ops')
    compiled = ModuleSpec('mmcv._ext', None, origin='/mmcv/_ext.so')
    monkeypatch.setattr(stand_in, 'find_spec', lambda name: compiled)
    status = compat.find_status('mmcv_ops')
    assert (status.active, status.reason) == (False, 'a compiled mmcv is installed')


def test_table(capsys):
    command.main()
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ['repair', 'active', 'why', 'upstream']
    assert [row.split()[0] for row in rows] == sorted((*compat.REPAIRS, *compat.STAND_INS))
    assert all(row.split()[1] in ('yes', 'no') for row in rows)
    assert all(row.endswith('not reported') or '  https://github.com/' in row for row in rows)


def test_table_without_openmmlab(install, capsys):
    install(torch='2.14.1')
    command.main()
    rows = capsys.readouterr().out.splitlines()[1:]
    assert all(row.split()[1] == 'no' for row in rows)
    assert sum('mmengine is not installed' in row for row in rows) > 3


@pytest.mark.parametrize('name', [*compat.REPAIRS, *compat.STAND_INS])
def test_repairs_import_openmmlab_only_when_they_are_applied(name):
    tree = ast.parse(inspect.getsource(compat.load(name)))
    imported = {each.module for each in tree.body if isinstance(each, ast.ImportFrom)}
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            imported |= {each.name for each in statement.names}
    assert not [module for module in imported if module.startswith('mm')]
