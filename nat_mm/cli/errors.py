"""How a command tells mistakes of its user from faults of the program."""

import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from urllib.error import URLError

from mmengine.config import Config
from mmengine.registry import build_from_cfg

from nat_mm.checkpoints import load_pretrained
from nat_mm.compat.checkpoints import CheckpointError
from nat_mm.hooks import NonFiniteError


class CommandError(Exception):
    """A mistake in what the user gave to a command; the message says what would be right."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command and turns mistakes of its user into one line on stderr and exit code 2.

    These are `CommandError` and `CheckpointError`.

    Any other exception is a fault of the program and keeps its traceback.

    Args:
        main: The command.
    """
    try:
        main()
    except (CommandError, CheckpointError) as error:
        message = printable(' '.join(str(error).split()))
        print('error:', textwrap.shorten(message, 800, placeholder=' ...'), file=sys.stderr)
        sys.exit(2)


def printable(text: str) -> str:
    """Escapes what a terminal would obey or cannot show, as there may be in the name of a file."""
    return ''.join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


@contextmanager
def config_mistakes(config: Config) -> Iterator[None]:
    """Turns exceptions that a wrong config causes while objects are built from it.

    These are: a type that is not registered, an argument that a constructor does not know or
    misses, and any ValueError, which is how constructors refuse a value. Everything else passes.

    Args:
        config: Config from which objects are built inside the ``with`` block.

    Raises:
        CommandError: The config is wrong.
    """
    try:
        yield
    except ValueError as error:
        raise CommandError(f'{config.filename}: {error}') from error
    except KeyError as error:
        if _codes(error)[-1] is not build_from_cfg.__code__:
            raise
        raise CommandError(f'{config.filename}: {error.args[0]}') from error
    except TypeError as error:
        # Constructors hand unknown arguments on to their base class, which refuses them.
        unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        place = unexpected and _find_key(config.to_dict(), unexpected[1])
        if not place and _codes(error)[-1] is not build_from_cfg.__code__:
            raise
        raise CommandError(f'{config.filename}: {place or error}') from error


@contextmanager
def weight_mistakes(config: Config) -> Iterator[None]:
    """Turns exceptions that the pretrained weights of a config cause while a run starts.

    Args:
        config: Config of the run inside the ``with`` block.

    Raises:
        CommandError: Weights cannot be downloaded or do not fit the model.
    """
    try:
        yield
    except URLError as error:
        raise CommandError(
            f'cannot download the pretrained weights of {config.filename} ({error.reason}). Give '
            'a local copy with --cfg-options model.backbone.init_cfg.checkpoint=PATH, or train '
            'from scratch with --cfg-options model.backbone.init_cfg=None'
        ) from error
    except (ValueError, FileNotFoundError) as error:
        if load_pretrained.__code__ not in _codes(error):
            raise
        raise CommandError(f'{config.filename}: {error}') from error


@contextmanager
def loss_mistakes(config: Config) -> Iterator[None]:
    """Turns the exception that a NaN or infinite loss causes into a mistake in the config.

    Args:
        config: Config of the run inside the ``with`` block.

    Raises:
        CommandError: A loss or weight is NaN or infinite.
    """
    try:
        yield
    except NonFiniteError as error:
        raise CommandError(f'{config.filename}: {error}') from error


def _codes(error: Exception) -> list[CodeType]:
    """The code of every frame that an exception passed through, where it was raised last."""
    return [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]


def _find_key(value: object, key: str, path: str = '') -> str | None:
    """Says where a nested config has a key, and in the arguments of which type."""
    if isinstance(value, dict):
        if key in value:
            return f'{path}{key} is not an argument of {value.get("type", "this function")}'
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    else:
        return None
    places = (_find_key(child, key, f'{path}{name}.') for name, child in children)
    return next(filter(None, places), None)
