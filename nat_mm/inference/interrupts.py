"""Lets signals stop a command only where nothing is left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Delays the effect of Ctrl-C, SIGTERM and SIGHUP inside the ``with`` block until its end.

    A signal without a handler of Python's keeps its effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(handler := signal.getsignal(number))
    }
    for number in handlers:
        signal.signal(number, lambda *arguments: received.append(arguments))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            number, frame = received[0]
            handlers[number](number, frame)
