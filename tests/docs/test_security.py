"""Tests that the security page names tests that exist."""

import re

import pytest

from tests.docs.blocks import ROOT

NAMED = re.findall(r'`(tests/[\w/]+\.py)::(\w+)`', (ROOT / 'docs/security.md').read_text())


def test_every_promise_has_a_test():
    rows = re.findall(r'^\| (?!Promise|---)(.+) \|$', (ROOT / 'docs/security.md').read_text(), re.M)
    assert rows
    assert [row for row in rows if '::test_' not in row.rpartition('|')[2]] == []


@pytest.mark.parametrize(('file', 'name'), sorted(set(NAMED)))
def test_named_test_exists(file, name):
    assert f'def {name}(' in (ROOT / file).read_text()
