"""Executes the blocks of a page, from the first to the last, in one folder."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmengine.config import Config
from packaging.requirements import Requirement

from nat_mm.data.shape_trace import build_without_memory
from tests import loading
from tests.docs.blocks import ROOT, Block
from tests.docs.substitutions import (
    ADDED_OPTIONS,
    REPLACED_WORDS,
    RUN_ELSEWHERE,
    SMALLER_CONFIGS,
)

FILE_COMMANDS = ('cp', 'ls', 'mkdir')
PRINTED = re.compile(r'^print\(.*\)  # (.+)$', flags=re.MULTILINE)


def run_elsewhere(command: str, table: Mapping[str, str] = RUN_ELSEWHERE) -> str | None:
    """Returns the test that executes a command, if it is executed elsewhere."""
    found = (test for pattern, test in table.items() if re.fullmatch(pattern, command))
    return next(found, None)


class Session:
    """Executes blocks in the current folder; Python blocks share their variables."""

    def __init__(self) -> None:
        self.names = {'__name__': '__main__'}
        self.output = ''

    def run(self, block: Block) -> None:
        """Executes a block: builds a config, runs Python code, or runs commands.

        The output of Python code must match the comment after ``print(...)``, or the next block
        with the title Output.
        """
        if block.language == 'python' and block.title:
            Path(block.title).write_text(block.text)
            build_model(block.title)
        elif block.language == 'python':
            self.output = self.run_code(block)
            for expected in PRINTED.findall(block.text):
                assert expected in self.output.splitlines()
        elif block.language == 'sh':
            for command in block.commands():
                print(f'$ {command}')
                run_command(command)
        elif block.title == 'Output':
            assert self.output == block.text

    def run_code(self, block: Block) -> str:
        """Runs Python code and returns its output."""
        code = compile(block.text, f'{block.page}:{block.line}', 'exec')
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, self.names)
        return output.getvalue()


def build_model(path: str) -> None:
    """Builds the model of a config without its weights."""
    config = Config.fromfile(path)
    config.model.backbone.init_cfg = None
    build_without_memory(config)


def run_command(command: str) -> None:
    """Runs a command of a page with the substitutions."""
    words = shlex.split(command)
    if run_elsewhere(command):
        for config in words:
            if config.startswith('configs/'):
                Config.fromfile(config)
        return
    match words:
        case ['make', *arguments]:
            check_make(arguments)
        case ['pip', 'install', *requirements]:
            check_requirements(requirements)
        case ['python', '-m', 'pytest', *arguments]:
            check_paths(arguments)
        case ['python', *_]:
            run_command_here(substitute(command, words)[1:])
        case ['nat-mm', *_]:
            run_command_here(['-m', 'nat_mm', *substitute(command, words)[1:]])
        case [name, *_] if name in FILE_COMMANDS:
            subprocess.run(words, check=True)
        case _:
            raise AssertionError(f'neither executed here nor in RUN_ELSEWHERE: {command}')


def substitute(command: str, words: list[str]) -> list[str]:
    """Substitutes smaller configs and local files, and adds options."""
    for beginning, options in ADDED_OPTIONS.items():
        if command.startswith(beginning):
            words = [*words, *shlex.split(options)]
    return [substitute_word(word) for word in words]


def substitute_word(word: str) -> str:
    if word in SMALLER_CONFIGS:
        return str(make_smaller(word))
    if word.startswith('https://'):
        return f'downloads/{word.rpartition("/")[2]}'
    return REPLACED_WORDS.get(word, word)


def make_smaller(config: str) -> Path:
    """Writes a config that inherits from another one and makes it smaller."""
    base = Path(config).resolve()
    path = Path('smaller', base.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'_base_ = {str(base)!r}\n{SMALLER_CONFIGS[config]}')
    return path


def run_command_here(words: list[str]) -> None:
    """Runs ``python WORDS`` in this process, since a new one would import OpenMMLab again."""
    loading.forget_visualizers()
    before, environment, exit_code = sys.argv, dict(os.environ), 0
    try:
        loading.run_python(words)
    except SystemExit as end:
        exit_code = end.code
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)
    assert not exit_code, f'python {shlex.join(words)} ended with exit code {exit_code}'


def check_make(arguments: list[str]) -> None:
    """Checks that a make target exists and that a test executes what it would run."""
    command = ['make', '--dry-run', *arguments]
    # `make test` may have started this process, but its options are not the reader's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MAKE')}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (target,) = [word for word in arguments if '=' not in word]
    recipe = result.stdout.strip().splitlines()[-1]
    recipe = re.sub(r'^(?:\w+=\S+ )*\S+/bin/python ', 'python ', recipe)
    if recipe.startswith('python -m pytest'):
        return  # this test is part of the suite
    assert run_elsewhere(recipe), f'make {target} runs {recipe}, which no test executes'


def check_paths(arguments: list[str]) -> None:
    """Checks that the files passed to pytest exist; they are part of the suite anyway."""
    paths = [word for word in arguments if '/' in word]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def check_requirements(requirements: list[str]) -> None:
    """Checks that requirements for pip agree with what is installed here."""
    with (ROOT / 'pyproject.toml').open('rb') as file:
        project = tomllib.load(file)['project']
    options = ('-e', '-v', '.')
    needed = [word.replace('.[', f'{project["name"]}[') for word in requirements]
    waiting = [Requirement(word) for word in needed if word not in options]
    while waiting:
        each = waiting.pop()
        if each.name == project['name']:
            for extra in each.extras:
                waiting += map(Requirement, project['optional-dependencies'][extra])
            continue
        with contextlib.suppress(PackageNotFoundError):
            assert version(each.name) in each.specifier, f'{each} is asked for by {requirements}'
