"""Executes every command and all code that README.md and the pages of docs/ show."""

import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from nat_mm.commands.main import COMMANDS
from nat_mm.config import zoo
from tests.checkpoints.models import make_classifier
from tests.docs.blocks import (
    CONFIG_PAGES,
    EXECUTED,
    PAGES,
    ROOT,
    SHOWN,
    inline_commands,
    read_blocks,
    shell_commands,
)
from tests.docs.session import Session, make_smaller, run_command, run_elsewhere
from tests.docs.substitutions import (
    CONFIG_PAGES_RUN_ELSEWHERE,
    RUN_ELSEWHERE,
    SMALLER_CONFIGS,
)
from tests.export.models import write_small_segmentor

PAGES_WITH_CODE = [
    page for page in PAGES if any(block.language in EXECUTED for block in read_blocks(page))
]
BEHIND_MAKE = (
    'python -m auditwheel repair --only-plat',
    'python -m mkdocs build --strict',
    'python -m tests.gpu',
    'python -W ignore -m tests.soak',
    'python -m tests.upstream mmdet=../mmdetection',
)
DEMO_MODELS = {'detector': 'mask_rcnn_nat_demo', 'segmentor': 'upernet_nat_demo'}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Path:
    """A copy of the repository as `make demo` leaves it, with COCO, released weights and a video.

    Everything is smaller: few generated scenes, two training steps, small models for the weights.
    """
    folder = tmp_path_factory.mktemp('pages')
    for name in ('configs', 'docs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_command('nat-mm make-scenes work_dirs/demo/data')
        for name, config in DEMO_MODELS.items():
            run_command(f'nat-mm train configs/demo/{config}.py --work-dir work_dirs/demo/{name}')
            Path(f'work_dirs/demo/{name}/iter_2.pth').rename(f'work_dirs/demo/{name}/iter_1000.pth')
        write_coco(Path('work_dirs/demo/data'), Path('data/coco'))
        write_released_weights(folder / 'downloads')
        write_video(folder / 'my_video.mp4')
        write_small_segmentor(folder / 'segmentor.onnx')
        shutil.copy('work_dirs/demo/data/images/val/00000.jpg', 'image.jpg')
    return folder


def write_coco(scenes: Path, folder: Path) -> None:
    """Makes generated scenes look like COCO, with its folders and categories."""
    names = DATASETS.get('mmdet.CocoDataset').METAINFO['classes']
    (folder / 'annotations').mkdir(parents=True)
    for part in ('train', 'val'):
        (folder / f'{part}2017').symlink_to((scenes / 'images' / part).resolve())
        content = json.loads((scenes / f'annotations/instances_{part}.json').read_text())
        content['categories'] = [{'id': i, 'name': name} for i, name in enumerate(names, start=1)]
        (folder / f'annotations/instances_{part}2017.json').write_text(json.dumps(content))


def write_released_weights(folder: Path) -> None:
    """Writes random weights of smaller models under the names of the authors' files."""
    folder.mkdir()
    torch.save(make_classifier(embed_dim=32), folder / 'nat_mini.pth')
    for name, config in {
        'nat_mini_maskrcnn.pth': 'configs/detection/nat/mask_rcnn_nat_mini_3x_coco.py',
        'nat_mini_upernet.pth': 'configs/segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py',
    }.items():
        config = Config.fromfile(make_smaller(config))
        with DefaultScope.overwrite_default_scope(config.default_scope):
            model = MODELS.build(config.model)
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / name)


def write_video(path: Path) -> None:
    """Writes three frames of noise."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 5, (96, 64))
    for frame in np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), dtype=np.uint8):
        writer.write(frame)
    writer.release()


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of the prepared folder, set as the current folder."""
    copy = shutil.copytree(prepared, tmp_path / 'here', symlinks=True)
    monkeypatch.chdir(copy)
    monkeypatch.setitem(os.environ, 'MPLBACKEND', 'Agg')
    monkeypatch.setitem(sys.modules, 'natten', None)  # one page inserts a stand-in
    monkeypatch.setitem(sys.modules, 'natten.functional', None)
    monkeypatch.setattr('nat_mm.config.reading.find_config', find_smaller_config)
    monkeypatch.setattr('nat_mm.inference.load_model.published_weights', find_smaller_weights)
    return copy


def find_smaller_config(source: str | Path) -> Path:
    """Finds a config as `load_model` does, but returns a smaller one for the model zoo."""
    found = zoo.find_config(source)
    path = f'configs/{found.as_posix().rpartition("/configs/")[2]}'
    is_replaced = zoo.is_model(str(source)) and path in SMALLER_CONFIGS
    return make_smaller(path) if is_replaced else found


def find_smaller_weights(config: str | Path) -> str | None:
    """Returns the weights of a smaller model, or the published ones."""
    return Config.fromfile(config).get('load_from') or zoo.published_weights(config)


@pytest.mark.parametrize('page', PAGES_WITH_CODE)
def test_page_runs_from_top_to_bottom(page, folder):
    session = Session()
    for block in read_blocks(page):
        session.run(block)


@pytest.mark.parametrize('page', PAGES)
def test_every_block_names_a_known_language(page):
    unknown = [
        f'{page}:{block.line}'
        for block in read_blocks(page)
        if block.language not in (*EXECUTED, *SHOWN)
    ]
    assert unknown == []


def test_commands_within_the_text_are_those_of_blocks():
    shown = [command.split() for command in shell_commands(PAGES)]
    unknown = {
        ' '.join(words)
        for words in mentioned()
        if not any(command[: len(words)] == words for command in shown)
    }
    assert [command for command in unknown if not runs(command)] == []


def mentioned() -> list[list[str]]:
    """Returns the commands within the text of all pages."""
    return [words for page in PAGES for words in inline_commands(page)]


def runs(command: str) -> bool:
    """Returns whether a command without placeholders can be executed."""
    if command.startswith(('make ', 'pip install ')):
        run_command(command)
        return True
    return bool(run_elsewhere(command))


def test_commands_of_the_configs_pages_are_executed_by_other_tests():
    commands = shell_commands(CONFIG_PAGES)
    assert commands
    elsewhere = CONFIG_PAGES_RUN_ELSEWHERE
    assert [command for command in commands if not run_elsewhere(command, elsewhere)] == []


@pytest.mark.parametrize('pattern', [*RUN_ELSEWHERE, *CONFIG_PAGES_RUN_ELSEWHERE])
def test_command_that_is_run_elsewhere_is_shown_and_its_test_exists(pattern):
    if pattern in RUN_ELSEWHERE:
        table = RUN_ELSEWHERE
        shown = [*shell_commands(PAGES), *map(' '.join, mentioned()), *BEHIND_MAKE]
    else:
        shown, table = shell_commands(CONFIG_PAGES), CONFIG_PAGES_RUN_ELSEWHERE
    assert any(re.fullmatch(pattern, command) for command in shown)
    path, _, name = table[pattern].partition('::')
    functions = [
        node.name
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef)
    ]
    assert name in functions


def test_smaller_configs_stand_for_configs_of_pages():
    titles = {block.title for page in PAGES for block in read_blocks(page)}
    assert [c for c in SMALLER_CONFIGS if c not in titles and not (ROOT / c).exists()] == []


def test_every_command_has_a_script():
    scripts = {path.stem for path in (ROOT / 'tools').glob('*.py')}
    assert scripts == {name.replace('-', '_') for name in COMMANDS}


@pytest.mark.parametrize('tool', sorted(path.name for path in (ROOT / 'tools').glob('*.*')))
def test_every_command_has_a_place_in_the_pages(tool):
    name, _, suffix = tool.partition('.')
    command = f'nat-mm {name.replace("_", "-")} ' if suffix == 'py' else f'tools/{tool} '
    assert any(f'{shown} '.startswith(command) for shown in shell_commands(PAGES))
