"""Ends a training run on a signal with a checkpoint from which it can resume."""

import copy
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import torch
from mmengine.dist import get_comm_device, is_distributed, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import FlexibleRunner
from torch.distributed import ReduceOp, all_reduce

from nat_mm.compat.outdated_checkpoints import note_outdated
from nat_mm.signals import FORKS, end_by_next
from nat_mm.training.checkpoint_hook import find_checkpoint_hook
from nat_mm.wrappers import list_optim_wrappers

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals of a scheduler or ``kill``, of Ctrl-C, and of a terminal that is closed."""


@contextmanager
def stop_on_signals(runner: Any) -> Iterator[None]:
    """Makes SIGTERM, Ctrl-C or SIGHUP end training after the current step.

    The process exits with 128 plus the signal number: 143, 130 or 129. A second SIGTERM or Ctrl-C
    ends it immediately. A signal that the process ignores remains ignored.

    Args:
        runner: Runner that trains inside the ``with`` block.
    """
    if threading.current_thread() is not threading.main_thread():  # gets no signals
        yield
        return
    stop = _StopHook()
    runner.register_hook(stop)
    owner = os.getpid()
    # Background jobs of a shell script ignore Ctrl-C, and ``nohup`` SIGHUP.
    numbers = [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]

    def ask_to_stop(number: int, _: object) -> None:
        # Forked processes, such as a data loader's workers, inherit this and get Ctrl-C, too.
        if os.getpid() == owner:
            stop.signal = number
            end_by_next(numbers)
            # PyTorch's handler would raise an error because the signal ended the workers.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    handlers = {each: signal.signal(each, ask_to_stop) for each in numbers}
    handlers[signal.SIGCHLD] = signal.getsignal(signal.SIGCHLD)
    before = FORKS.signals
    FORKS.signals = before | ({signal.SIGTERM, signal.SIGHUP} & set(numbers))
    try:
        yield
    except RuntimeError as error:
        if stop.signal is None or 'DataLoader worker' not in str(error):
            raise
        stop.finish(runner, stop.signal)
    finally:
        FORKS.signals = before
        for each, handler in handlers.items():
            signal.signal(each, handler)


class _StopHook(Hook):
    """Checks after each iteration whether training is to end, and ends it.

    Attributes:
        signal: The signal that requested the end, or None.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def __init__(self):
        self.signal = None
        self._vote = None
        self._iteration = self._saved_iteration = 0
        self._last_checkpoint = None

    def before_train(self, runner: Any) -> None:
        self._iteration = self._saved_iteration = runner.iter

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        self._iteration = runner.iter + 1
        self._notice_checkpoint(runner)
        number = self._agree()
        # Gradients accumulated for a later step would be lost.
        if number and _have_stepped(runner.optim_wrapper):
            self.finish(runner, number)

    def after_train_epoch(self, runner: Any) -> None:
        self._notice_checkpoint(runner)

    def after_val_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if self.signal is None:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(runner)  # swaps the trained weights back in
        self.finish(runner, self.signal)

    def after_train(self, runner: Any) -> None:
        if self._vote is not None:
            self._vote.result()

    def finish(self, runner: Any, number: int) -> NoReturn:
        """Saves a checkpoint if needed, reports it, and exits.

        Args:
            runner: The runner.
            number: The signal number.

        Raises:
            SystemExit: Always, with 128 plus the signal number.
        """
        if self._vote is not None:
            self._vote.result()
        outcome = self._save(runner)
        if is_main_process():
            place = f'{signal.Signals(number).name} after iteration {self._iteration}'
            with suppress(OSError):  # of a terminal that was closed
                print(f'stopped by {place}: {outcome}', file=sys.stderr)
        raise SystemExit(128 + number)

    def _agree(self) -> int | None:
        """Returns the signal once every process knows that one of them has received it."""
        if not is_distributed():
            return self.signal
        # The result is read an iteration later, when it has already arrived.
        before, self._vote = self._vote, _Vote(self.signal or 0)
        return before.result() if before else None

    def _notice_checkpoint(self, runner: Any) -> None:
        hook = find_checkpoint_hook(runner)
        if hook is not None and hook.last_ckpt != self._last_checkpoint:
            self._last_checkpoint = hook.last_ckpt
            self._saved_iteration = self._iteration

    def _save(self, runner: Any) -> str:
        """Saves a checkpoint unless this iteration has one, and returns a message about it."""
        hook = find_checkpoint_hook(runner)
        if hook is None:
            return 'nothing was saved, as the config has no CheckpointHook'
        if not self._iteration:
            return 'there is nothing to save yet'
        if self._iteration == self._saved_iteration:
            return 'its checkpoint is written; continue with --resume'
        between_iterations = runner.iter == self._iteration
        # Between iterations, processes do not stop at the same point, and FlexibleRunner's count is
        # one too high.
        if between_iterations and (is_distributed() or isinstance(runner, FlexibleRunner)):
            return f'--resume continues after iteration {self._saved_iteration}'
        if hook.by_epoch:
            # The hook itself counts epochs.
            name, limited, hook = 'iter_{}.pth', hook.max_keep_ckpts > 0, copy.copy(hook)
            hook.by_epoch, hook.filename_tmpl, hook.max_keep_ckpts = False, name, -1
            if limited:
                note_outdated(runner.message_hub, name.format(self._iteration))
        meta = dict(epoch=runner.epoch, iter=self._iteration)
        hook._save_checkpoint_with_step(runner, self._iteration, meta)
        return f'saved {hook.last_ckpt}; continue with --resume'


class _Vote:
    """Finds the highest signal that any process has received, without waiting."""

    def __init__(self, number: int):
        self._number = torch.full((1,), number, device=get_comm_device())
        self._work = all_reduce(self._number, ReduceOp.MAX, async_op=True)

    def result(self) -> int:
        """Returns the signal number, or 0 for none; waits for the other processes if necessary."""
        self._work.wait()
        return int(self._number)


def _have_stepped(optim_wrapper: Any) -> bool:
    """Returns whether every optimizer has applied the gradients that it accumulated."""
    return all(each.should_update() for each in list_optim_wrappers(optim_wrapper))
