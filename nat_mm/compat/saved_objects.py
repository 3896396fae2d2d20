"""Rebuilds the objects in mmengine's checkpoints without using the classes that a file names.

A pickle may call every name that it is allowed to, with arguments of its choice. The real classes
of NumPy and mmengine are not safe against this: ``numpy.ndarray`` interprets numbers as addresses
of objects, and a ``HistoryBuffer`` passes the methods that it was saved with on to all others. A
file therefore gets stand-ins with the same names, which validate and keep what was saved, and
:func:`restore` builds the real objects from them.
"""

import argparse
import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

_STATISTICS = ('min', 'max', 'current', 'mean')
_DTYPES = {name: np.dtype(name) for name in ('f8', 'f4', 'i8', 'i4', 'b1')}
_DEEPEST = 100
"""Most levels of nesting; mmengine's files have about ten."""


class _StandIn:
    """Base of the stand-ins. They cannot be hashed, so no key of a dict is or contains one."""

    __hash__ = None


class _SavedDtype(_StandIn):
    """Stands in for ``numpy.dtype``."""

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        if type(name) is not str or name not in _DTYPES:
            raise UnpicklingError(f'a NumPy dtype must be one of {", ".join(_DTYPES)}')
        self.dtype = _DTYPES[name]

    def __setstate__(self, state: tuple) -> None:
        version, order, *details = state
        if order not in ('<', '|') or details[:3] != [None] * 3:
            raise UnpicklingError('a NumPy dtype must be a plain little-endian number')


class _SavedArray(_StandIn):
    """Stands in for ``numpy.ndarray``."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        if type(shape) is not tuple or any(type(side) is not int or side < 0 for side in shape):
            raise UnpicklingError('the shape of a NumPy array must be a tuple of whole numbers')
        order = 'F' if is_fortran else 'C'
        self.array = _numbers(dtype, data, math.prod(shape)).reshape(shape, order=order)


class _SavedHistory(_StandIn):
    """Stands in for ``HistoryBuffer``."""

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        if type(state) is not dict:
            raise UnpicklingError('the state of a HistoryBuffer must be a dict')
        self.state = state


def _reconstruct(kind: type, shape: tuple, typecode: bytes) -> _SavedArray:
    """Stands in for NumPy's function that creates an array whose content follows."""
    if kind is not _SavedArray:
        raise UnpicklingError('only a NumPy array can be reconstructed')
    return _SavedArray()


def _scalar(dtype: _SavedDtype, data: bytes) -> np.generic:
    """Stands in for NumPy's function that creates a scalar."""
    return _numbers(dtype, data, 1)[0]


def _getattr(owner: type, name: str) -> str:
    """Stands in for ``getattr``, with which HistoryBuffer saves its statistics methods."""
    if owner is not _SavedHistory or name not in _STATISTICS:
        raise UnpicklingError('Unsupported global: GLOBAL builtins.getattr')
    return name


def _bytes() -> bytes:
    """Stands in for ``bytes``, which pickles call for an empty value."""
    return b''


def _numbers(dtype: _SavedDtype, data: bytes, count: int) -> np.ndarray:
    """Returns an array [count] that owns its memory."""
    if type(dtype) is not _SavedDtype or type(data) is not bytes:
        raise UnpicklingError('NumPy numbers must be a dtype and bytes')
    if len(data) != count * dtype.dtype.itemsize:
        raise UnpicklingError(f'{count} NumPy numbers of {dtype.dtype} cannot be {len(data)} bytes')
    return np.frombuffer(data, dtype.dtype).copy()


_STAND_INS = {
    'argparse.Namespace': argparse.Namespace,  # timm, which the authors use, saves its arguments
    'builtins.bytes': _bytes,
    'builtins.getattr': _getattr,
    'mmengine.logging.history_buffer.HistoryBuffer': _SavedHistory,
    'numpy.dtype': _SavedDtype,
    'numpy.ndarray': _SavedArray,
    # NumPy 1 writes numpy.core, NumPy 2 numpy._core.
    **{f'numpy.{core}.multiarray._reconstruct': _reconstruct for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': _scalar for core in ('core', '_core')},
}


class _Allowance:
    """Lets files use the stand-ins while at least one thread reads a checkpoint.

    PyTorch has a single list of allowed names for the whole process. Outside the ``with`` block,
    nothing is added to it; inside, names that the program itself has allowed remain allowed, except
    those that have a stand-in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._allowed = torch.serialization.safe_globals(
            [(stand_in, name) for name, stand_in in _STAND_INS.items()]
        )
        self._hidden: list = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._readers += 1
            if self._readers == 1:
                self._hide_others_of_the_same_names()
                self._allowed.__enter__()
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if self._readers == 0:
                    self._allowed.__exit__(None, None, None)
                    torch.serialization.add_safe_globals(self._hidden)

    def _hide_others_of_the_same_names(self) -> None:
        allowed = torch.serialization.get_safe_globals()
        self._hidden = [entry for entry in allowed if _name(entry) in _STAND_INS]
        if self._hidden:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(
                [entry for entry in allowed if entry not in self._hidden]
            )


saved_objects_allowed = _Allowance()


def _name(entry: Any) -> str:
    """Returns the name by which a file refers to an entry of PyTorch's list."""
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


def restore(value: Any) -> Any:
    """Copies what was read, replacing stand-ins with the real objects.

    Containers are new and contain nothing but their entries; tensors share their storage with those
    that were read, but not their attributes and hooks.

    Args:
        value: What ``torch.load`` returned within `saved_objects_allowed`.

    Returns:
        The copy.

    Raises:
        UnpicklingError: If a container contains itself or is nested too deeply, or the saved state
            of an array or history is invalid.
    """
    return _Restoring().restore(value)


class _Restoring:
    def __init__(self) -> None:
        # An object that occurs in several places stays a single object, and is copied once.
        self._copies: dict[int, Any] = {}

    def restore(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise UnpicklingError(f'nested more than {_DEEPEST} levels deep')
        if id(value) not in self._copies:
            self._copies[id(value)] = self._copy(value, depth + 1)
        return self._copies[id(value)]

    def _copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        # Looks methods up in the class, as a file may set any attribute of its containers.
        if kind in (dict, OrderedDict, Counter):
            copy = kind()
            for key, entry in kind.items(value):
                kind.__setitem__(copy, self.restore(key, depth), self.restore(entry, depth))
            if kind is OrderedDict and type(vars(value).get('_metadata')) in (dict, OrderedDict):
                copy._metadata = self.restore(vars(value)['_metadata'], depth)
            return copy
        if kind in (list, tuple):
            return kind([self.restore(entry, depth) for entry in value])
        if kind is argparse.Namespace:
            return argparse.Namespace(**self.restore(vars(value), depth))
        if kind is torch.Tensor:
            return torch.Tensor.detach(value)
        if kind is nn.Parameter:
            return nn.Parameter(torch.Tensor.detach(value), value.requires_grad)
        if kind is _SavedArray:
            return _content(value, 'array')
        if kind is _SavedHistory:
            return self._history(_content(value, 'state'), depth)
        if isinstance(value, _StandIn) or any(value is each for each in _STAND_INS.values()):
            raise UnpicklingError('a class, function or dtype is not a value that checkpoints have')
        return value

    def _history(self, state: dict[str, Any], depth: int) -> HistoryBuffer:
        names = ('_log_history', '_count_history', 'max_length')
        log, count, length = (self.restore(state.get(name), depth) for name in names)
        if not (_is_row(log) and _is_row(count) and log.shape == count.shape):
            raise UnpicklingError('a HistoryBuffer must hold two rows of as many numbers')
        if type(length) is not int or length < 1:
            raise UnpicklingError('max_length of a HistoryBuffer must be a whole number above 0')
        return HistoryBuffer(log, count, length)


def _content(saved: _StandIn, name: str) -> Any:
    if name not in vars(saved):
        raise UnpicklingError('an array or history was saved without its content')
    return vars(saved)[name]


def _is_row(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1
