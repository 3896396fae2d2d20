"""Distinguishes mistakes in a config from bugs when mmengine cannot build an object.

mmengine's registries raise plain KeyError and TypeError for both. Here they raise subclasses of
these if the config is wrong. For everything else that is built from a config, it matters which code
raised an exception, and whether on purpose.
"""

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

_NO_ARGUMENTS = {'type', '_scope_', 'convert_to_iter_based', 'epoch_length'}
"""Keys that mmengine does not pass on as arguments."""


_LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
"""Packages that pass on the values of configs without checking their types."""
_BENEATH = {'numpy', 'torch', *sys.stdlib_module_names}
"""Packages that know nothing of configs: an exception from these is due to their callers."""
_RAISE = dis.opmap['RAISE_VARARGS']


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


def is_mistake(error: Exception) -> bool:
    """Tells whether a config caused an exception while objects were built from it.

    These are ValueErrors and failed assertions, by which constructors refuse values, and
    TypeErrors, KeyErrors and AttributeErrors that a ``raise`` statement raised or that come from
    OpenMMLab's code, which uses values unchecked. From any other code, the latter are bugs.

    Args:
        error: The exception, as caught.
    """
    if isinstance(error, ValueError | AssertionError):
        return True
    if not isinstance(error, TypeError | KeyError | AttributeError):
        return False
    packages = [_package(frame) for frame, _ in _walk(error)]
    concerned = [each for each in packages if each not in _BENEATH]
    return concerned[-1] in _LIBRARIES or (packages[-1] == concerned[-1] and was_raised(error))


def was_raised(error: Exception) -> bool:
    """Tells whether a ``raise`` statement raised an exception, not an operation that failed."""
    *_, (frame, position) = _walk(error)
    return frame.f_code.co_code[position] == _RAISE


def find_built(error: Exception) -> dict[str, Any] | None:
    """Returns the config of the innermost object that a registry was building, if any.

    Args:
        error: The exception, as caught outside of a `tell_mistakes_apart` block.
    """
    built = [
        frame.f_locals['cfg']
        for frame, _ in _walk(error)
        if frame.f_code.co_name == 'build_and_tell' and _package(frame) == 'nat_mm'
    ]
    return built[-1] if built and isinstance(built[-1], dict) else None


def _walk(error: Exception) -> Iterator[tuple[FrameType, int]]:
    """Yields the frames of a traceback, and the position of the instruction in each."""
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame, step.tb_lasti
        step = step.tb_next


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get('__name__')).partition('.')[0]


@functools.cache
def _extend_registries() -> None:
    build = Registry.build

    @functools.wraps(build)
    def build_and_tell(self: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return build(self, cfg, *args, **kwargs)
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
