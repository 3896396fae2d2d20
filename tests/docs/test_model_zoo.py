"""The model zoo: metafiles, tables and READMEs made from the facts."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mim.commands.search import convert2df
from modelindex.load_model_index import load

ROOT = Path(__file__).parents[2]
FACTS = json.loads((ROOT / 'tests/data/published_experiments.json').read_text())
EXPERIMENTS = {facts['name']: facts for facts in FACTS['experiments']}
FAMILIES = ('nat', 'dinat', 'dinat_s')
CONFIGS = [
    path.relative_to(ROOT)
    for family in FAMILIES
    for path in sorted((ROOT / 'configs').glob(f'*/{family}/*.py'))
]
PAGES = ['docs/model_zoo.md', *sorted({str(path.parent / 'README.md') for path in CONFIGS})]


def run(root, *options):
    command = [sys.executable, root / 'docs/model_zoo.py', *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """The script and the facts, without anything that the script writes."""
    for path in ('docs/model_zoo.py', 'tests/data/published_experiments.json'):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / path, tmp_path / path)
    for config in CONFIGS:
        (tmp_path / config).parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


@pytest.fixture(scope='module')
def found():
    """What ``mim search`` finds: a row for each model."""
    index = load(str(ROOT / 'model-index.yml'))
    index.check(silent=False)
    return convert2df(index)


def test_everything_is_up_to_date():
    result = run(ROOT, '--check')
    assert (result.returncode, result.stderr) == (0, '')


def test_outdated_file_is_named_and_written_again(copy):
    assert run(copy).returncode == 0
    assert run(copy, '--check').returncode == 0
    metafile = copy / 'configs/detection/nat/metafile.yml'
    written = metafile.read_text()
    metafile.write_text(written.replace('46.5', '46.6'))
    result = run(copy, '--check')
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'out of date, run python docs/model_zoo.py: configs/detection/nat/metafile.yml'
    ]
    assert metafile.read_text() != written
    assert run(copy).stdout == 'wrote configs/detection/nat/metafile.yml\n'
    assert metafile.read_text() == written


def test_every_config_is_listed_once(found):
    assert sorted(found.config) == sorted(map(str, CONFIGS))
    assert list(found.index) == [Path(config).stem for config in found.config]


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_mim_finds_the_published_figures(found, name):
    facts, row = EXPERIMENTS[name], found.loc[name].dropna()
    published = facts['published']
    assert row.weight == published['checkpoint']
    assert row.model == facts['backbone'].lower()
    assert row.parameters == published['params_M'] * 1e6
    assert row.flops == published['flops_G'] * 1e9
    assert row.trained_by == f'the authors of {facts["backbone"]}'.lower()
    columns = {
        'detection': {'coco/box_ap': 'box_AP', 'coco/mask_ap': 'mask_AP'},
        'segmentation': {'ade20k/miou': 'mIoU', 'ade20k/miou(ms+flip)': 'mIoU_multiscale'},
    }[facts['task']]
    assert {column: row[column] for column in row.index if '/' in column} == {
        column: published[key] for column, key in columns.items()
    }


def test_mim_finds_the_published_classifiers(found):
    columns = ['architecture', 'input_size', 'parameters', 'flops', 'imagenet-1k/top_1_accuracy']
    rows = found[found['imagenet-1k/top_1_accuracy'].notna()]
    assert sorted(rows[[*columns, 'weight']].values.tolist()) == sorted(
        [
            facts['name'].lower(),
            '{0}x{0}'.format(facts['resolution']),
            facts['params_M'] * 1e6,
            round(facts['flops_G'] * 1e9),
            facts['top1'],
            facts.get('renamed', facts['checkpoint']),
        ]
        for facts in FACTS['imagenet_backbones']
    )


def test_metafiles_have_what_mmengine_reads():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for path in index['Import']:
        for model in yaml.safe_load((ROOT / path).read_text())['Models']:
            assert model['Config'].startswith(str(Path(path).parent))
            assert model['Weights'].startswith('https://')


@pytest.mark.parametrize('page', PAGES)
def test_pages_say_whose_results_they_are_and_have_no_dead_links(page):
    text = (ROOT / page).read_text()
    assert "those of the papers' authors; nobody has trained these models again" in text
    links = re.findall(r'\]\(((?!https?:)[^)]+)\)', text)
    assert links
    assert [link for link in links if not ((ROOT / page).parent / link).is_file()] == []


def test_page_has_every_model(found):
    text = (ROOT / 'docs/model_zoo.md').read_text()
    rows = re.findall(r'^\| \[(\w+)\]', text, re.MULTILINE)
    assert sorted(rows) == sorted(found.index)
