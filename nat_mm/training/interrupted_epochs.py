"""Resuming an epoch where it was interrupted.

mmengine's EpochBasedTrainLoop begins the epoch of a checkpoint from its first batch, whatever
happened to the epoch before the checkpoint was written.
"""

from types import ModuleType
from typing import Any

INTERRUPTED = 'interrupted_epoch'
"""Where the message hub, and with it the checkpoint, says how far the epoch has come."""


def note_interruption(runner: Any, *, iteration: int, batches: int) -> None:
    """Has the checkpoint that is written next continue in the middle of its epoch.

    Args:
        runner: The runner.
        iteration: Iterations that are done of the training run.
        batches: Batches that are done of the epoch.
    """
    place = {
        'epoch': runner.epoch,
        'iteration': iteration,
        'batches': batches,
        'batches_per_epoch': len(runner.train_dataloader),
    }
    runner.message_hub.update_info(INTERRUPTED, place)


def continue_epochs(loops: ModuleType) -> None:
    """Lets EpochBasedTrainLoop skip the batches that were done before an interruption.

    They are loaded and dropped, as IterBasedTrainLoop does it. If an epoch has got another number
    of batches since, it begins anew.

    Args:
        loops: ``mmengine.runner.loops``.
    """
    loop_class = loops.EpochBasedTrainLoop
    run_epoch, run_iter = loop_class.run_epoch, loop_class.run_iter

    def run_rest_of_epoch(self) -> None:
        place = self.runner.message_hub.runtime_info.get(INTERRUPTED, {})
        self._batches_done = 0
        # Checkpoints that are written later keep the note, and are of another place.
        if (place.get('epoch'), place.get('iteration')) == (self._epoch, self._iter):
            if place['batches_per_epoch'] == len(self.dataloader):
                self._batches_done = place['batches']
                self.runner.logger.info(
                    f'Skipping {self._batches_done} batches of the epoch that are trained already.'
                )
            else:
                self.runner.logger.warning(
                    f'An epoch had {place["batches_per_epoch"]} batches and has '
                    f'{len(self.dataloader)} now: the interrupted epoch starts over.'
                )
        run_epoch(self)

    def run_iter_that_is_left(self, idx, data_batch) -> None:
        if idx >= self._batches_done:
            run_iter(self, idx, data_batch)

    loop_class._batches_done = 0
    loop_class.run_epoch = run_rest_of_epoch
    loop_class.run_iter = run_iter_that_is_left
