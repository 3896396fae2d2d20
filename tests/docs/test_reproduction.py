"""Tests that docs/reproduction.md has each published experiment compared with its config."""

import re

import pytest

from docs import reproduction
from tests.model_zoo import ROOT, read_model_zoo

ROWS = dict(
    re.findall(r'^\| (\w+)(?: \[\d\])? \| (.*) \|$', reproduction.PAGE.read_text(), re.MULTILINE)
)
ROWS.pop('Config', None)


def test_all_experiments_are_in_one_table():
    assert list(ROWS) == list(reproduction.read_experiments())
    assert len(ROWS) == 64
    assert ROWS.keys() == read_model_zoo().keys()


@pytest.mark.parametrize('name', ROWS)
def test_numbers_are_close_or_explained(name):
    facts, *numbers = ROWS[name].split(' | ')
    published_parameters, parameters, published_flops, flops = map(float, numbers)
    metadata = reproduction.read_metafiles()[name]['Metadata']
    assert facts == 'equal'
    assert published_parameters == metadata['Parameters'] / 1e6
    assert published_flops == metadata['FLOPs'] / 1e9
    if name not in reproduction.NOTES:
        assert parameters == pytest.approx(published_parameters, abs=1)
        assert flops == pytest.approx(published_flops, rel=reproduction.TOLERANCE)


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn_nat_mini_3x_coco',
        'dinat_isotropic_small_in1k_224',
        'mask2former_dinat_large_512x1024_90k_cityscapes_instance',
    ],
)
def test_the_script_still_finds_these_numbers(name):
    assert str(reproduction.measure(name)) == f'| {name} | {ROWS[name]} |'


def test_a_differing_fact_is_named():
    row = reproduction.Row('name', ('batch', 'arch'), parameters=(1, 1.04), flops=(535, 522.3))
    assert str(row) == '| name | differ: batch, arch | 1 | 1.04 | 535 | 522.3 |'


def test_script_is_part_of_the_site():
    assert 'reproduction.md' in (ROOT / 'mkdocs.yml').read_text()
