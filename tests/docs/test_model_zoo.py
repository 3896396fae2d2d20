"""Tests the model zoo: metafiles as mim reads them, and the pages generated from them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mim.commands.search import convert2df
from modelindex.load_model_index import load

from tests.model_zoo import ROOT, read_model_zoo

MODEL_ZOO = read_model_zoo()
FOLDERS = ('*/nat', '*/dinat', '*/dinat_s', 'classification/isotropic', '*/mask2former')
CONFIGS = [
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in sorted((ROOT / 'configs').glob(f'{folder}/*.py'))
]
PAGES = ['docs/model_zoo.md', *sorted({str(path.parent / 'README.md') for path in CONFIGS})]
COLUMNS = {
    'box AP': 'box_ap',
    'mask AP': 'mask_ap',
    'PQ': 'pq',
    'mIoU': 'miou',
    'mIoU(ms+flip)': 'miou(ms+flip)',
    'Top 1 Accuracy': 'top_1_accuracy',
}
"""The names that mim uses for the metafiles' metrics, after the name of the dataset."""


def run(root, *options):
    command = [sys.executable, root / 'docs/model_zoo.py', *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """The script and the metafiles without the files that the script writes."""
    for path in ('docs/model_zoo.py', 'model-index.yml', *(ROOT / 'configs').glob('*/*/*.yml')):
        target = tmp_path / (ROOT / path).relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target)
    return tmp_path


@pytest.fixture(scope='module')
def found():
    """What ``mim search`` finds: one row for each model."""
    index = load(str(ROOT / 'model-index.yml'))
    index.check(silent=False)
    return convert2df(index)


def test_everything_is_up_to_date():
    result = run(ROOT, '--check')
    assert (result.returncode, result.stderr) == (0, '')


def test_outdated_pages_are_named_and_written_again(copy):
    assert run(copy).returncode == 0
    assert run(copy, '--check').returncode == 0
    metafile = copy / 'configs/detection/nat/metafile.yml'
    metafile.write_text(metafile.read_text().replace('46.5', '11.5'))
    pages = ['docs/model_zoo.md', 'configs/detection/nat/README.md']
    result = run(copy, '--check')
    assert result.returncode == 2
    assert result.stderr == f'out of date, run python docs/model_zoo.py: {", ".join(pages)}\n'
    assert ' 11.5 ' not in (copy / pages[0]).read_text()
    assert run(copy).stdout.splitlines() == [f'wrote {page}' for page in pages]
    assert all(' 11.5 ' in (copy / page).read_text() for page in pages)


def test_every_config_is_listed_once(found):
    assert sorted(found.config) == sorted(map(str, CONFIGS))
    assert list(found.index) == [Path(config).stem for config in found.config]


@pytest.mark.parametrize('name', MODEL_ZOO)
def test_mim_finds_what_the_metafiles_say(found, name):
    entry, row = MODEL_ZOO[name], found.loc[name].dropna()
    metadata = entry['Metadata']
    assert row.weight == entry['Weights']
    assert row.model == entry['In Collection'].lower()
    assert (row.parameters, row.flops) == (metadata['Parameters'], metadata['FLOPs'])
    assert row.input_size == metadata['Input Size']
    assert row.trained_by == f'the authors of {entry["In Collection"]}'.lower()
    assert {column: row[column] for column in row.index if '/' in column} == {
        f'{each["Dataset"].lower()}/{COLUMNS[key]}': value
        for each in entry['Results']
        for key, value in each['Metrics'].items()
    }


def test_metafiles_have_what_mmengine_reads():
    weights = [entry['Weights'] for entry in MODEL_ZOO.values()]
    assert all(each.startswith('https://') for each in weights)
    assert len(set(weights)) == len(weights)
    for entry in MODEL_ZOO.values():
        assert (ROOT / entry['Config']).stem == entry['Name']


@pytest.mark.parametrize('page', PAGES)
def test_pages_have_no_dead_links(page):
    links = re.findall(r'\]\(((?!https?:)[^)]+)\)', (ROOT / page).read_text())
    assert links
    assert [link for link in links if not ((ROOT / page).parent / link).is_file()] == []


def test_page_has_every_model_with_its_figures():
    text = (ROOT / 'docs/model_zoo.md').read_text()
    rows = dict(re.findall(r'^\| \[(\w+)\](.*)', text, re.MULTILINE))
    assert sorted(rows) == sorted(MODEL_ZOO)
    for name, row in rows.items():
        entry = MODEL_ZOO[name]
        assert f'| {entry["Metadata"]["Parameters"] / 1e6:g} M |' in row
        assert f'({entry["Weights"]})' in row
        for results in entry['Results']:
            for value in results['Metrics'].values():
                assert f'| {value} |' in row
