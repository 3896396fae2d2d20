"""Reports in one line which setting makes the first steps of a run fail."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook

from nat_mm.config.failures import describe_failure, is_due_to_config, passes_model
from nat_mm.errors import UserError


@contextmanager
def first_pass_mistakes(runner: Any, *, on_start: Callable[[], None]) -> Iterator[None]:
    """Converts exceptions by which a wrong config shows up as soon as a run uses it.

    These are exceptions for which `is_due_to_config` is true, if they arise in the model's first
    iteration of training, validation or testing, or in the optimizer, a hook or an evaluator during
    the first epoch. What fails later depends on data or weights, so it propagates.

    Args:
        runner: Runner that works inside the ``with`` block.
        on_start: Called when the first iteration has been completed.

    Raises:
        UserError: The config is wrong.
    """
    progress = _Progress(on_start)
    runner.register_hook(progress, priority='LOWEST')
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        in_model = passes_model(error)
        is_first = progress.iterations <= 1 if in_model else progress.epochs <= 1
        if not is_first or not is_due_to_config(error):
            raise
        text = describe_failure(runner.cfg.to_dict(), error)
        raise UserError(f'{runner.cfg.filename}: {text}') from error


class _Progress(Hook):
    """Counts the epochs and iterations that began in the current kind of loop.

    Args:
        on_start: Called after the first iteration of training or testing.
    """

    def __init__(self, on_start: Callable[[], None]):
        self._on_start = on_start
        self._epochs: Counter[str] = Counter()
        self._iterations: Counter[str] = Counter()
        self._mode = 'train'

    @property
    def epochs(self) -> int:
        """Number of epochs, or of validations or tests."""
        return self._epochs[self._mode]

    @property
    def iterations(self) -> int:
        """Number of iterations in all of these."""
        return self._iterations[self._mode]

    def _before_epoch(self, runner: Any, mode: str = 'train') -> None:
        self._mode = mode
        self._epochs[mode] += 1

    def _before_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = 'train'
    ) -> None:
        self._mode = mode
        self._iterations[mode] += 1

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        self._on_start()

    def after_test_iter(self, *_: Any, **__: Any) -> None:
        self._on_start()
