"""Shows the progress of a check on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as ProgressBar

from nat_mm.data.progress import Progress


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Provides a `Progress` that draws bars on stderr until the ``with`` block ends.

    Nothing is drawn if stderr is not a terminal.
    """
    console = Console(stderr=True)
    with ProgressBar(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield progress
