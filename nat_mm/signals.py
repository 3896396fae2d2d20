"""What signals do after the first one, and in forked processes, which inherit the handlers."""

import os
import signal
import threading
from collections.abc import Iterable


def end_by_next(numbers: Iterable[signal.Signals]) -> None:
    """Makes the next signal end this process at once.

    Only SIGHUP has no effect then: a terminal that is closed sends it twice, by its shell and when
    that has ended.

    Args:
        numbers: The signals; a handler is put in place for no others.
    """
    for each in numbers:
        signal.signal(each, signal.SIG_IGN if each == signal.SIGHUP else signal.SIG_DFL)


class _Forks:
    """Restores signals in forked processes, as ``multiprocessing.Pool`` relies on.

    With the handlers that they inherit, workers of a metric's pool could ignore SIGTERM, and the
    run would wait for them forever. The signals are held back during a fork, since Python forgets
    what arrives before the new process has its own handlers.

    Attributes:
        signals: Signals that have their default effect in forked processes.
    """

    def __init__(self) -> None:
        self.signals: frozenset[signal.Signals] = frozenset()
        self._of_thread = threading.local()
        os.register_at_fork(
            before=self._hold_back,
            after_in_parent=self._let_through,
            after_in_child=self._end_by_default,
        )

    def _hold_back(self) -> None:
        self._of_thread.signals = self.signals
        self._of_thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)

    def _let_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._of_thread.mask)

    def _end_by_default(self) -> None:
        for each in self._of_thread.signals:
            signal.signal(each, signal.SIG_DFL)
        self._let_through()
        self.signals = frozenset()


FORKS = _Forks()
