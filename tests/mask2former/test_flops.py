"""Multiply-adds of whole models: the published numbers are those of images of 800 x 800."""

import json

import pytest

from tests.loading import load_command
from tests.mask2former.small import CONFIGS, SHIPPED


@pytest.mark.parametrize(('task', 'billions'), [('semantic', 518), ('panoptic', 522)])
def test_published_flops(task, billions, capsys):
    load_command('get_flops').main(
        [str(CONFIGS / SHIPPED[task]), '--shape', '800', '800', '--json']
    )
    report = json.loads(capsys.readouterr().out)
    assert report['parameters'] / 1e6 == pytest.approx(220, abs=0.5)
    assert report['multiply_adds'] / 1e9 == pytest.approx(billions, abs=0.5)
