"""Tells which setting of a config made OpenMMLab fail, from the traceback of an exception."""

import linecache
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import FrameType, TracebackType
from typing import Any
from xml.etree.ElementTree import ParseError

from mmengine.config import Config
from mmengine.runner import BaseLoop, FlexibleRunner, Runner

from nat_mm.config.building import built_from, config_being_built
from nat_mm.config.objects import type_name, walk_dicts

LIBRARIES = frozenset(
    ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torch', 'torchvision', 'numpy')
    + ('pycocotools', 'terminaltables', 'prettytable')
)
"""Packages that fail because of what they are given, unlike users' code and nat_mm."""
STUMBLES = (ValueError, TypeError, LookupError, AssertionError, ArithmeticError)
"""What code raises that refuses a value or stumbles over it."""
UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""What a wrong path causes; other errors of the operating system are not about a config."""
HARDWARE = re.compile(
    r'CUDA|cuDNN|CUBLAS|NCCL|gloo|out of memory|allocate memory|DataLoader worker \(pid',
    re.IGNORECASE,
)
PLAIN = (type(None), bool, int, float, str, list, tuple, dict, Config)
SETTINGS_NAMED, LONGEST_VALUE = 3, 60


@dataclass(frozen=True)
class _Step:
    """A frame of a traceback, innermost call of its line included."""

    frame: FrameType
    code: str

    @property
    def package(self) -> str:
        if config_being_built(self.frame) is not None:
            return 'mmengine'  # its Registry.build
        return str(self.frame.f_globals.get('__name__', '')).partition('.')[0]

    @property
    def is_foreign(self) -> bool:
        """Whether the code is neither nat_mm's nor a library's, so it is the user's own."""
        return self.package not in LIBRARIES | sys.stdlib_module_names | {'nat_mm'}

    @property
    def is_backward(self) -> bool:
        return self.frame.f_globals.get('__name__') == 'torch.autograd.graph'

    @property
    def owner(self) -> Any:
        return self.frame.f_locals.get('self')


def is_due_to_config(error: Exception) -> bool:
    """Returns whether OpenMMLab's or PyTorch's code failed because of what a config gave it.

    A file that a part reads may be missing or broken, too.

    Exceptions that pass through a user's own code, or start in nat_mm's without being raised there
    on purpose, may be bugs, so their traceback matters. The same is true of exceptions in a
    backward pass, those about memory, devices or a data loader's dead workers, and missing modules,
    unless OpenMMLab says what to install.

    Args:
        error: Exception raised while objects are built from a config or used for the first time.
    """
    if isinstance(error, AttributeError):
        settings = built_from(error.obj)
        # mmdet builds no part from a setting that is None.
        is_unset = isinstance(settings, dict) and error.name in settings
        if not is_unset and not isinstance(error.obj, PLAIN):
            return False
    elif type(error) in (RuntimeError, ImportError):
        if HARDWARE.search(str(error)):
            return False
    elif not isinstance(error, (*STUMBLES, *UNREADABLE, NameError, ParseError)):
        return False
    steps = _walk(error)
    if isinstance(error, NameError) and steps[-1].frame.f_code.co_filename != '<string>':
        return False  # no name that was evaluated, such as mmcv's kinds of NMS
    parts = [at for at, step in enumerate(steps) if _part(step) is not None or _is_runner(step)]
    if not parts or any(each.is_foreign or each.is_backward for each in steps[parts[0] :]):
        return False
    if steps[-1].package == 'nat_mm':
        return isinstance(error, ValueError | TypeError) and steps[-1].code.startswith('raise ')
    return all(each.package != 'nat_mm' for each in steps[parts[-1] :])


def passes_model(error: Exception) -> bool:
    """Returns whether an exception arose while a runner ran its model or updated its weights."""
    names = {each.frame.f_code.co_name for each in _walk(error)}
    return not names.isdisjoint(('train_step', 'val_step', 'test_step'))


def describe_failure(config: Mapping[str, Any], error: Exception) -> str:
    """Describes an exception, starting with the part of the config or its setting if known.

    Args:
        config: The whole config.
        error: Exception raised while objects are built from it or used.
    """
    text = _describe(error)
    steps = _walk(error)
    found = _find_part(config, steps)
    if found is None:
        return text
    place, part, inside = found
    if isinstance(error, UNREADABLE) or (
        isinstance(error, ValueError | TypeError)
        and inside
        and inside[-1].code.startswith('raise ')
    ):
        # The message says what is wrong.
        return f'{place}: {text}' if place else text
    named = _find_settings(part, inside)
    if isinstance(error, AttributeError) and error.name and error.name in part:
        named = {error.name: part[error.name]}
    if not named and place and type(error) is RuntimeError:
        named = {name: value for name, value in part.items() if _is_not_positive(value)}
    named = dict(list(named.items())[:SETTINGS_NAMED])
    if len(named) == 1:
        ((name, value),) = named.items()
        return f'{place + "." if place else ""}{name} is {value!r}: {text}'
    settings = ', '.join(f'{name}={value!r}' for name, value in named.items())
    start = ', with '.join(filter(None, (place, settings)))
    return f'{start}: {text}' if place else text


def find_place(config: Mapping[str, Any], part: Any) -> str | None:
    """Finds where a config has a part, such as ``model.backbone``; None if that is not clear.

    Args:
        config: The whole config.
        part: The part, to which constructors may have added keys.
    """
    if not isinstance(part, dict) or 'type' not in part:
        return None
    places = {
        path: len(each)
        for path, each in walk_dicts(config)
        if path and type_name(each) == type_name(part)
    }
    if len(places) > 1:
        known = dict(walk_dicts(config))
        places = {
            path: size
            for path, size in places.items()
            if all(part.get(key) == value for key, value in known[path].items() if key != 'type')
        }
    most = max(places.values(), default=0)
    found = [path for path, size in places.items() if size == most]
    return found[0] if len(found) == 1 else None


def _describe(error: Exception) -> str:
    """Describes an exception, together with the line that raised it unless its text is enough."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, UNREADABLE) and error.filename is not None:
        return f'{error.filename}: {error.strerror}'
    error = _original(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = error.args[0] if error.args else last.line
    if isinstance(error, KeyError) and not re.search(r'\s', str(text)):
        text = f'there is no {text!r}'  # otherwise it is a message
    return f'{text} ({type(error).__name__} in {last.filename}, line {last.lineno})'


def _original(error: Exception) -> Exception:
    """Returns the exception behind the one by which mmengine says which hook failed."""
    cause = error.__context__
    if error.__suppress_context__ and type(cause) is TypeError is type(error):
        if error.__cause__ is None and str(error).startswith(str(cause)):
            return cause
    return error


def _walk(error: Exception) -> list[_Step]:
    steps = []
    original = _original(error)
    for each in dict.fromkeys((error, original)):
        trace = each.__traceback__
        while trace is not None:
            steps.append(_Step(trace.tb_frame, _read_code(trace)))
            trace = trace.tb_next
    return steps


def _read_code(trace: TracebackType) -> str:
    """Reads the expression or statement that was running."""
    code = trace.tb_frame.f_code
    position = next(islice(code.co_positions(), trace.tb_lasti // 2, None), (None,) * 4)
    first, last, start, end = position
    if first is None or last is None:
        first = last = trace.tb_lineno
    lines = [linecache.getline(code.co_filename, each).encode() for each in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return b' '.join(line.strip() for line in lines).decode(errors='replace')


def _is_runner(step: _Step) -> bool:
    return isinstance(step.owner, Runner | FlexibleRunner)


def _part(step: _Step) -> Any:
    """Returns the config of the part that is being built or used in a frame; None if unknown."""
    part = config_being_built(step.frame)
    if part is None and step.owner is not None:
        part = built_from(step.owner)
    return part


def _find_part(
    config: Mapping[str, Any], steps: list[_Step]
) -> tuple[str, Mapping[str, Any], list[_Step]] | None:
    """Finds the innermost part with a place in the config.

    Returns:
        Its place, its config, and the steps inside it.
    """
    found: tuple[str, Mapping[str, Any], list[_Step]] | None = None
    purpose = None
    for at, step in enumerate(steps):
        inside = steps[at + 1 :] if config_being_built(step.frame) is not None else steps[at:]
        name = step.frame.f_code.co_name
        if name == 'build_dataloader' and purpose:
            place = f'{purpose}_dataloader'
            found = place, config.get(place) or {}, inside
        elif _is_runner(step):
            matched = re.fullmatch('build_(train|val|test)_loop', name)
            purpose = matched[1] if matched else purpose
            found = found or ('', config, inside)
        elif not isinstance(step.owner, BaseLoop):
            part = _part(step)
            path = find_place(config, part) if part is not None else None
            if path is not None and (found is None or path != found[0]):
                found = path, part, inside
    return found


def _find_settings(part: Mapping[str, Any], steps: list[_Step]) -> dict[str, Any]:
    """Finds the settings of a part that the innermost line with any of them was using."""
    known = {name: value for name, value in part.items() if _is_short(value)}
    # PyTorch's own names, such as in_channels, need not mean the settings of the same name.
    own = [each for each in steps if each.package in LIBRARIES - {'torch'}]
    for step in (*reversed(own), *(each for each in reversed(steps) if each.package == 'torch')):
        if step.code.startswith('super()'):  # it passes everything on
            continue
        # An attribute may differ from the setting of its name, such as a pair from a number.
        same: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for prefix, name in re.findall(r'(\w+\.)?\b([A-Za-z_]\w*)', step.code):
            if name not in known or name == 'type':
                continue
            scope = getattr(step.owner, '__dict__', {}) if prefix else step.frame.f_locals
            is_own = prefix in ('', 'self.') and name in scope
            if is_own and _is_same(scope[name], known[name]):
                same[name] = known[name]
            elif prefix == 'self.' and hasattr(step.owner, name):
                other[name] = known[name]
        if same or other:
            return same or other
    return {}


def _is_same(value: Any, setting: Any) -> bool:
    if value is setting:
        return True
    return isinstance(value, PLAIN) and bool(value == setting)


def _is_not_positive(value: Any) -> bool:
    """Whether a value is a whole number below 1, or a list of such."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(_is_not_positive, value))
    return type(value) is int and value < 1


def _is_short(value: Any) -> bool:
    return isinstance(value, PLAIN) and len(repr(value)) <= LONGEST_VALUE
