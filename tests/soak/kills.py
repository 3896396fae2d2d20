"""Kills training runs at random moments and checks that they can be resumed."""

import builtins
import importlib
import itertools
import os
import random
import select
import signal
import statistics
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmengine.hooks.checkpoint_hook
import mmengine.runner
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS

from nat_mm.config.reading import load_config
from nat_mm.training.resume import find_last_checkpoint
from tests.loading import forget_visualizers, load_command
from tests.processes import leave_out_log_details

BALLAST = 30_000_000
"""Bytes added to each checkpoint, so that writing it takes a while."""

KILLS_IN_A_RUN = 10
TIMEOUT = 120  # seconds


@dataclass
class Result:
    """The outcome of the kills.

    Attributes:
        kills: Number of kills.
        writing: Number of kills that came while a checkpoint was being written.
        lost: Descriptions of what was wrong after kills.
        finished: Number of training runs that ended properly after their kills.
    """

    kills: int = 0
    writing: int = 0
    lost: list[str] = field(default_factory=list)
    finished: int = 0


@HOOKS.register_module()
class TellProgress(Hook):
    """Makes checkpoints large and reports the progress of the training run to the parent process.

    The messages are ``s`` before a checkpoint is written and ``d 7`` after the seventh iteration or
    epoch, once its checkpoint is written and the ones that it replaces are deleted.
    """

    priority = 'LOWEST'
    pipe = None

    def __init__(self, by_epoch: bool):
        self.by_epoch = by_epoch

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        checkpoint['ballast'] = torch.zeros(BALLAST, dtype=torch.uint8)
        self.tell('s')

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if not self.by_epoch:
            self.tell(f'd {runner.iter + 1}')

    def after_train_epoch(self, runner: Any) -> None:
        if self.by_epoch:
            self.tell(f'd {runner.epoch + 1}')

    def tell(self, message: str) -> None:
        os.write(self.pipe, f'{message}\n'.encode())


def undo_repair(set_attribute: Any = setattr) -> None:
    """Makes mmengine save as it does without nat_mm."""
    saving = mmengine.runner.save_checkpoint.__wrapped__
    for module in (mmengine.runner, mmengine.runner.runner, mmengine.runner.checkpoint):
        set_attribute(module, 'save_checkpoint', saving)
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        set_attribute(CheckpointHook, name, getattr(CheckpointHook, name).__wrapped__)
    set_attribute(mmengine.hooks.checkpoint_hook, 'open', builtins.open)


class Soak:
    """Kills training runs of a config.

    Args:
        config: Config file.
        by_epoch: Whether the config counts epochs.
        folder: Folder for the runs.
        seed: Seed of the random moments.
        mended: Whether nat_mm's repair of mmengine is active.
    """

    def __init__(
        self, config: Path, *, by_epoch: bool, folder: Path, seed: int = 0, mended: bool = True
    ):
        self._train = load_command('train').main
        folder.mkdir()
        self._config = str(folder / 'config.py')
        settled = load_config(str(config))
        settled.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
        settled.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1, save_best=None)
        settled.custom_hooks = [dict(type='TellProgress', by_epoch=by_epoch)]
        # Resolves the config's bases, which take seconds to find, and imports everything they need.
        settled.dump(self._config)
        framework = importlib.import_module(f'{settled.default_scope}.utils')
        framework.register_all_modules()
        self._by_epoch = by_epoch
        self._folder = folder
        self._random = random.Random(seed)
        self._mended = mended
        self._durations = [0.1]  # of saving, in seconds

    def run(self, kills: int) -> Result:
        """Kills that many times in total, in several training runs that may then finish."""
        result = Result()
        for number in itertools.count():
            if result.kills == kills:
                return result
            self._run_once(self._folder / f'{number}', kills, result)

    def _run_once(self, work_dir: Path, kills: int, result: Result) -> None:
        reached = 0
        for _ in range(min(KILLS_IN_A_RUN, kills - result.kills)):
            told, writing = self._train_and_kill(work_dir)
            reached = max(reached, told)
            result.kills += 1
            result.writing += writing
            fault = find_fault(work_dir, reached, 'epoch' if self._by_epoch else 'iter')
            if fault:
                result.lost.append(f'kill {result.kills}, {work_dir}: {fault}')
                return
        child, pipe = self._start(work_dir, end=reached + 2)
        list(_messages(pipe))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        left = sorted(path.name for path in work_dir.iterdir() if path.is_file())
        last = f'{"epoch" if self._by_epoch else "iter"}_{reached + 2}.pth'
        checkpoints = [name for name in left if '.pth' in name]
        if code != 0 or (self._mended and checkpoints != [last]):
            result.lost.append(f'{work_dir} did not finish: exit code {code}, files {left}')
        else:
            result.finished += 1

    def _train_and_kill(self, work_dir: Path) -> tuple[int, bool]:
        """Returns the progress that the run reported and whether it was writing a checkpoint."""
        child, pipe = self._start(work_dir, end=10**6)
        messages = _messages(pipe)
        saves = self._random.randint(1, 3)
        reached, writing, begun = 0, False, 0.0
        for message in messages:
            if message == 's':
                writing, begun, saves = True, time.monotonic(), saves - 1
                if saves == 0:
                    break
            elif writing:
                reached, writing = int(message.split()[1]), False
                self._durations.append(time.monotonic() - begun)
        time.sleep(self._random.uniform(0, 1.2) * statistics.median(self._durations))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == -signal.SIGKILL, f'training ended by itself; see {work_dir}.log'
        for message in messages:
            writing = message == 's'
            if not writing:
                reached = int(message.split()[1])
        return reached, writing

    def _start(self, work_dir: Path, *, end: int) -> tuple[int, int]:
        """Forks a training run and returns its process id and the pipe for its progress."""
        read, write = os.pipe()
        child = os.fork()
        if child:
            os.close(write)
            return child, read
        try:
            os.close(read)
            log = os.open(f'{work_dir}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (1, 2):
                os.dup2(log, stream)
            sys.stdout = sys.stderr = open(log, 'w')  # noqa: SIM115
            TellProgress.pipe = write
            torch.set_num_threads(1)  # other threads do not survive a fork
            forget_visualizers()
            leave_out_log_details()
            if not self._mended:
                undo_repair()
            self._train([self._config, '--work-dir', str(work_dir), *self._options(end)])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(1)

    def _options(self, end: int) -> list[str]:
        counter = 'max_epochs' if self._by_epoch else 'max_iters'
        return ['--resume', '--cfg-options', f'train_cfg.{counter}={end}']


def _messages(pipe: int) -> Any:
    """Yields the lines that arrive until the other end is closed."""
    left = b''
    while True:
        if not select.select([pipe], [], [], TIMEOUT)[0]:
            raise TimeoutError('a training run tells nothing')
        content = os.read(pipe, 4096)
        if not content:
            os.close(pipe)
            return
        *lines, left = (left + content).split(b'\n')
        yield from (line.decode() for line in lines)


def find_fault(work_dir: Path, reached: int, unit: str) -> str | None:
    """Returns what is wrong with the work directory of a run that had saved number ``reached``."""
    try:
        found = find_last_checkpoint(str(work_dir), quiet=True)
    except Exception as error:
        return str(error)
    if found is None:
        return f'no checkpoint, where {unit} {reached} was saved' if reached else None
    source, checkpoint = found
    progress = checkpoint['meta'][unit]
    return f'{source} is older than {unit} {reached}' if progress < reached else None
