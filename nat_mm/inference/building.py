"""Distinguishes mistakes in a config from bugs when mmengine cannot build an object.

mmengine's registries raise plain KeyError and TypeError for both. Here they raise subclasses of
these if the config is wrong. Whatever else a constructor raises tells which config it was given.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

_NO_ARGUMENTS = {'type', '_scope_', 'convert_to_iter_based', 'epoch_length'}
"""Keys that mmengine does not pass on as arguments."""


_BUILT = '_nat_mm_built'
"""Attribute of an exception with the config of the object that could not be built."""


class UnknownTypeError(KeyError):
    """A config has no ``type`` or one that is not registered."""


class BadArgumentError(TypeError):
    """A config has an argument that its ``type`` does not know, lacks one, or is not a config.

    Args:
        message: What is wrong.
        kind: The ``type`` as given in the config.
        argument: The unknown argument; None if something else is wrong.
    """

    def __init__(self, message: str, kind: Any = None, argument: str | None = None):
        super().__init__(message)
        self.kind = kind
        self.argument = argument


_TELLING: ContextVar[bool] = ContextVar('_TELLING', default=False)


@contextmanager
def tell_mistakes_apart() -> Iterator[None]:
    """Makes all registries raise these errors inside the ``with`` block."""
    _extend_registries()
    token = _TELLING.set(True)
    try:
        yield
    finally:
        _TELLING.reset(token)


def find_built(error: Exception) -> dict[str, Any] | None:
    """Returns the config of the innermost object that could not be built because of an error.

    Args:
        error: Exception from a `tell_mistakes_apart` block.
    """
    built = vars(error).get(_BUILT)
    return built if isinstance(built, dict) else None


@functools.cache
def _extend_registries() -> None:
    build = Registry.build

    @functools.wraps(build)
    def build_and_tell(self: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return build(self, cfg, *args, **kwargs)
        except (UnknownTypeError, BadArgumentError):
            raise
        except Exception as error:
            if not _TELLING.get():
                raise
            vars(error).setdefault(_BUILT, cfg)
            if not isinstance(error, KeyError | TypeError):
                raise
            defaults = kwargs.get('default_args') or next(iter(args), None) or {}
            for entry in cfg if isinstance(cfg, list) else [cfg]:
                mistake = _find_mistake(self, entry, defaults, error)
                if mistake:
                    raise mistake from error
            raise

    Registry.build = build_and_tell


def _find_mistake(
    registry: Registry, cfg: Any, defaults: dict[str, Any], error: Exception
) -> Exception | None:
    """Returns the error of a config that cannot be built; None if the config is not at fault."""
    if not isinstance(cfg, dict | Config):
        return BadArgumentError(str(error))
    arguments = {**defaults, **cfg}
    kind = arguments.get('type')
    with registry.switch_scope_and_registry(arguments.get('_scope_')) as scoped:
        target = scoped.get(kind) if isinstance(kind, str) else kind
    if target is None:
        return UnknownTypeError(error.args[0])
    if not callable(target):
        return BadArgumentError(str(error))
    if isinstance(error, KeyError):
        return None
    given = arguments.keys() - _NO_ARGUMENTS
    name = getattr(target, '__name__', kind)
    known = _known_arguments(target)
    unknown = [each for each in arguments if each in given and known and each not in known]
    if unknown:
        return BadArgumentError(f'{unknown[0]} is not an argument of {name}', kind, unknown[0])
    missing = [each for each in _required_arguments(target) if each not in given]
    if missing:
        return BadArgumentError(f'{name} needs the argument {missing[0]}')
    return None


def _known_arguments(target: Any) -> set[str] | None:
    """Lists the arguments of a function or class, including its bases' if it passes others on.

    Returns:
        The names; None if any are accepted.
    """
    functions = [target]
    if inspect.isclass(target):
        functions = [vars(each)['__init__'] for each in target.__mro__ if '__init__' in vars(each)]
    names = set()
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        names |= {each.name for each in parameters}
        if all(each.kind is not each.VAR_KEYWORD for each in parameters):
            return names
    return None


def _required_arguments(target: Any) -> list[str]:
    parameters = inspect.signature(target).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.kind in named and each.default is each.empty]
