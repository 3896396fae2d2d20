"""Explains why a model cannot run if its parts do not fit together."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mmengine.config import Config

from nat_mm.errors import CheckpointError, UserError


@contextmanager
def misfits_explained(config: Config) -> Iterator[None]:
    """Runs a model, and explains an exception by parts of the model that do not fit together.

    Args:
        config: Config of the model that runs inside the ``with`` block.

    Raises:
        UserError: It failed and parts do not fit. Other exceptions propagate.
    """
    try:
        yield
    except (UserError, CheckpointError):
        raise
    except Exception as error:
        problem = explain_misfit(config)
        if problem is None:
            raise
        raise UserError(f'{config.filename}: {problem}') from error


def explain_misfit(config: Config) -> str | None:
    """Says which parts of a model that could not run do not fit together; None if all fit."""
    # Imported here because most runs need none of the checks.
    from nat_mm.data.model_fit import find_model_problems

    with suppress(Exception):  # what made the model fail is to be reported
        problems = find_model_problems(config, for_training=False)
        return next((each.text for each in problems if each.is_error), None)
    return None
