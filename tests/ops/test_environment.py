"""Tests the environment variables that turn something on or off."""

import pytest

from nat_mm.errors import UserError
from nat_mm.ops.environment import read_flag

NAME = 'NAT_MM_RECOMPUTE'


@pytest.mark.parametrize(('value', 'expected'), [(None, None), ('0', False), ('1', True)])
def test_values(monkeypatch, value, expected):
    monkeypatch.delenv(NAME, raising=False)
    if value is not None:
        monkeypatch.setenv(NAME, value)
    assert read_flag(NAME) is expected


@pytest.mark.parametrize('value', ['yes', '', '2'])
def test_other_values(monkeypatch, value):
    """Commands report a UserError in one line."""
    monkeypatch.setenv(NAME, value)
    with pytest.raises(UserError, match=f"{NAME} must be '0' or '1', got '{value}'"):
        read_flag(NAME)
