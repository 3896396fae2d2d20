"""Predicts the images of several requests together, in a single thread."""

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from nat_mm.inference.inputs import Frame
from nat_mm.inference.model import Model
from nat_mm.inference.results import Result


@dataclass(eq=False)
class _Job:
    frame: Frame
    score_threshold: float
    future: 'Future[Result]' = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What images must have in common to give the same results in a batch as alone.

        Images of different shapes would be padded, and a lower threshold keeps more objects.
        """
        pixels = self.frame.pixels
        return (pixels.shape, pixels.dtype.str, self.score_threshold)


class Batcher:
    """The only thread that uses a model; as a context manager, it runs inside the ``with`` block.

    The image that has waited longest is predicted next, together with others of the same shape and
    threshold.

    Args:
        model: The model.
        batch_size: Most images to predict at once.
        max_wait: Seconds that an image waits for others, unless the batch is full earlier.
    """

    def __init__(self, model: Model, *, batch_size: int, max_wait: float) -> None:
        self._model = model
        self._batch_size = batch_size
        self._max_wait = max_wait
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name='model', daemon=True)

    def __enter__(self) -> 'Batcher':
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Predicts the waiting images, then ends."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def submit(self, frame: Frame, *, score_threshold: float) -> 'Future[Result]':
        """Queues an image for the model.

        Args:
            frame: The image.
            score_threshold: Drops objects of a detector with lower scores.

        Returns:
            Its result, or the exception that the model raised. If canceled before its turn, the
            image is not predicted.
        """
        job = _Job(frame, score_threshold)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        job.future.add_done_callback(lambda future: self._forget(job))
        return job.future

    def _forget(self, job: _Job) -> None:
        if job.future.cancelled():
            with self._changed:
                if job in self._jobs:
                    self._jobs.remove(job)

    def _run(self) -> None:
        while batch := self._next_batch():
            if jobs := [job for job in batch if job.future.set_running_or_notify_cancel()]:
                self._predict(jobs)

    def _next_batch(self) -> list[_Job]:
        """Waits for the next images; returns an empty list at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._is_ending)
                if not self._jobs:
                    return []
                first = self._jobs[0]
                alike = [job for job in self._jobs if job.kind == first.kind][: self._batch_size]
                waited = time.monotonic() - first.arrived
                is_full = len(alike) == self._batch_size
                if is_full or self._is_ending or waited >= self._max_wait:
                    for job in alike:
                        self._jobs.remove(job)
                    return alike
                self._changed.wait(self._max_wait - waited)

    def _predict(self, jobs: list[_Job]) -> None:
        threshold = jobs[0].score_threshold
        try:
            with self._model.low_scores_kept(threshold):
                samples = self._model.infer([job.frame for job in jobs])
            results = [
                self._model.result(job.frame, sample, score_threshold=threshold)
                for job, sample in zip(jobs, samples, strict=True)
            ]
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            # A single image may be the cause.
            for job in jobs:
                self._predict([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
