"""Distinguishes mistakes in a config from bugs when mmengine cannot build an object.

mmengine's registries raise plain KeyError and TypeError for both. Here they raise subclasses of
these if the config is wrong, and remember from which config they built each object.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from mmengine.config import Config
from mmengine.registry import Registry

from nat_mm.config.objects import type_name

_NO_ARGUMENTS = {'type', '_scope_', 'convert_to_iter_based', 'epoch_length'}
"""Keys that mmengine does not pass on as arguments."""

_SOURCES: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Config of each object built in a `tell_mistakes_apart` block."""


class UnknownTypeError(KeyError):
    """A config has no ``type`` or one that is not registered."""


class BadArgumentError(TypeError):
    """A config has an argument that its ``type`` does not know, lacks one, or is not a config.

    Args:
        message: What is wrong.
        kind: The name of the ``type`` in the config.
        argument: The unknown argument; None if something else is wrong.
    """

    def __init__(self, message: str, kind: str | None = None, argument: str | None = None):
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


def config_being_built(frame: FrameType) -> Any:
    """Returns the config from which a registry builds an object in a frame; None in other frames.

    Args:
        frame: Frame from a `tell_mistakes_apart` block.
    """
    is_build = frame.f_globals is globals() and frame.f_code.co_name == 'build_and_tell'
    return frame.f_locals['cfg'] if is_build else None


def built_from(instance: Any) -> Any:
    """Returns the config from which an object was built; None if that is not known.

    Args:
        instance: Object of any kind.
    """
    try:
        return _SOURCES.get(instance)
    except TypeError:  # it cannot be hashed
        return None


@functools.cache
def _extend_registries() -> None:
    build = Registry.build

    @functools.wraps(build)
    def build_and_tell(self: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            built = build(self, cfg, *args, **kwargs)
        except (UnknownTypeError, BadArgumentError):
            raise
        except (KeyError, TypeError) as error:
            if not _TELLING.get():
                raise
            defaults = kwargs.get('default_args') or next(iter(args), None) or {}
            for entry in cfg if isinstance(cfg, list) else [cfg]:
                mistake = _find_mistake(self, entry, defaults, error)
                if mistake:
                    raise mistake from error
            raise
        if _TELLING.get():
            with suppress(TypeError):  # it cannot be hashed or weakly referenced
                _SOURCES[built] = cfg
        return built

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
    known = known_arguments(target)
    unknown = [each for each in arguments if each in given and known and each not in known]
    if unknown:
        text = f'{unknown[0]} is not an argument of {name}'
        return BadArgumentError(text, type_name(arguments), unknown[0])
    missing = [each for each in _required_arguments(target) if each not in given]
    if missing:
        return BadArgumentError(f'{name} needs the argument {missing[0]}')
    return None


def known_arguments(target: Any) -> set[str] | None:
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
