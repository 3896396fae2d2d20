"""Resumes an epoch where it was interrupted.

mmengine's EpochBasedTrainLoop always resumes an epoch from its first batch, no matter how far the
epoch had progressed when the checkpoint was written.
"""

from types import ModuleType

INTERRUPTED = 'interrupted_epoch'
"""Key under which the message hub, and thus the checkpoint, records the epoch's progress."""


def continue_epochs(loops: ModuleType) -> None:
    """Makes EpochBasedTrainLoop skip the batches that were completed before a checkpoint.

    They are loaded and dropped, as in IterBasedTrainLoop. If the number of batches per epoch has
    changed since, the epoch starts over. Every checkpoint of such a loop records them.

    Args:
        loops: ``mmengine.runner.loops``.
    """
    loop_class = loops.EpochBasedTrainLoop
    run_epoch, run_iter = loop_class.run_epoch, loop_class.run_iter

    def run_rest_of_epoch(self) -> None:
        place = self.runner.message_hub.runtime_info.get(INTERRUPTED, {})
        self._batches_done = 0
        # Checkpoints between epochs keep this record, which does not apply to them.
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
        if idx < self._batches_done:
            return
        # Hooks save checkpoints inside run_iter, after the training step.
        place = {
            'epoch': self._epoch,
            'iteration': self._iter + 1,
            'batches': idx + 1,
            'batches_per_epoch': len(self.dataloader),
        }
        self.runner.message_hub.update_info(INTERRUPTED, place)
        run_iter(self, idx, data_batch)

    loop_class._batches_done = 0
    loop_class.run_epoch = run_rest_of_epoch
    loop_class.run_iter = run_iter_that_is_left
