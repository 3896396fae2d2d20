"""Checks that imports point down only, so that a reader who follows one needs nothing above it."""

import ast
from pathlib import Path

import nat_mm

ROOT = Path(nat_mm.__file__).parent
HELPERS = {'errors', 'files', 'fonts', 'output', 'signals', 'wrappers'}
PACKAGES = [
    *('ops', 'layers', 'compat', 'checkpoints', 'backbones', 'config', 'inference', 'data'),
    *('training', 'analysis', 'export', 'integrations', 'demo', 'serving', 'web', 'commands'),
]
"""From the lowest to the highest."""
ALLOWED = {('compat/safe_checkpoints.py', 'checkpoints')}
"""A repair of mmengine's reader, which calls that of nat_mm."""


def imported_packages(path):
    """Yields the parts of nat_mm that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module]  # relative ones stay in their package
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        for name in names:
            if name.startswith('nat_mm.'):
                yield name.split('.')[1]


def test_every_package_has_a_place():
    folders = {path.parent.name for path in ROOT.glob('*/__init__.py')}
    assert folders == set(PACKAGES)


def test_imports_point_down():
    wrong = []
    for path in sorted(ROOT.rglob('*.py')):
        package, *rest = path.relative_to(ROOT).parts
        if not rest:
            continue
        allowed = {*HELPERS, *PACKAGES[: PACKAGES.index(package) + 1]}
        for name in imported_packages(path):
            place = f'{package}/{"/".join(rest)}'
            if name not in allowed and (place, name) not in ALLOWED:
                wrong.append(f'{place} imports {name}')
    assert wrong == []
