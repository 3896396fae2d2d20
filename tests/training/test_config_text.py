"""Tests that what yapf makes of a config's text is cached."""

import sys
from types import SimpleNamespace

import mmengine.config.config as config_module
import pytest

from nat_mm.training.config_text import REMEMBERED, format_once
from tests.processes import start


@pytest.fixture
def module():
    """Replaces mmengine.config.config and records the texts that are formatted."""
    formatted = []

    def format_code(text, **options):
        formatted.append(text)
        return text.replace(' ', options.get('space', '')), True

    module = SimpleNamespace(FormatCode=format_code, formatted=formatted)
    format_once(module)
    return module


def test_text_is_formatted_once(module):
    assert [module.FormatCode('a = 1') for _ in range(3)] == [('a=1', True)] * 3
    assert module.formatted == ['a = 1']


def test_other_texts_and_styles_are_others(module):
    assert module.FormatCode('a = 1')[0] == 'a=1'
    assert module.FormatCode('b = 1')[0] == 'b=1'
    assert module.FormatCode('a = 1', space='_')[0] == 'a_=_1'


def test_few_texts_are_kept(module):
    texts = [f'a = {number}' for number in range(REMEMBERED + 1)]
    for text in [*texts, texts[-1], texts[0]]:
        module.FormatCode(text)
    assert module.formatted == [*texts, texts[0]]


def exit_extended():
    sys.exit(0 if hasattr(config_module.FormatCode, '__wrapped__') else 1)


@pytest.mark.skipif(not hasattr(config_module, 'FormatCode'), reason='a fork of mmengine')
def test_mmengine_is_extended():
    """Runs in a separate process because the tests skip formatting here."""
    process = start(exit_extended)
    process.join()
    assert process.exitcode == 0


def test_fork_without_the_function_is_left_alone():
    module = SimpleNamespace()
    format_once(module)
    assert vars(module) == {}
