"""What mmengine's checkpoints hold beside weights, built without the classes that a file names.

A pickle may call every name that it is allowed, with arguments of its own choice. NumPy's and
mmengine's real classes are not made for that: ``numpy.ndarray`` takes numbers for addresses of
objects, and a ``HistoryBuffer`` hands on the methods that it was saved with to all others. So a
file gets stand-ins of the same names, which check and keep what was saved, and :func:`restore`
builds the real objects from them.
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
"""Levels of nesting; what mmengine writes has about ten."""


class _StandIn:
    """Base of the stand-ins. As none can be hashed, no key of a dict is or holds one."""

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
    """Stands in for NumPy's function that makes an array whose content follows."""
    if kind is not _SavedArray:
        raise UnpicklingError('only a NumPy array can be reconstructed')
    return _SavedArray()


def _scalar(dtype: _SavedDtype, data: bytes) -> np.generic:
    """Stands in for NumPy's function that makes a scalar."""
    return _numbers(dtype, data, 1)[0]


def _getattr(owner: type, name: str) -> str:
    """Stands in for ``getattr``, by which HistoryBuffer saves its statistics methods."""
    if owner is not _SavedHistory or name not in _STATISTICS:
        raise UnpicklingError('Unsupported global: GLOBAL builtins.getattr')
    return name


def _bytes() -> bytes:
    """Stands in for ``bytes``, by which pickles write that there are none."""
    return b''


def _numbers(dtype: _SavedDtype, data: bytes, count: int) -> np.ndarray:
    """An array [count] of its own memory."""
    if type(dtype) is not _SavedDtype or type(data) is not bytes:
        raise UnpicklingError('NumPy numbers must be a dtype and bytes')
    if len(data) != count * dtype.dtype.itemsize:
        raise UnpicklingError(f'{count} NumPy numbers of {dtype.dtype} cannot be {len(data)} bytes')
    return np.frombuffer(data, dtype.dtype).copy()


_STAND_INS = {
    'argparse.Namespace': argparse.Namespace,  # timm saves its arguments, and with it the authors
    'builtins.bytes': _bytes,
    'builtins.getattr': _getattr,
    'mmengine.logging.history_buffer.HistoryBuffer': _SavedHistory,
    'numpy.dtype': _SavedDtype,
    'numpy.ndarray': _SavedArray,
    # numpy 1 writes numpy.core, numpy 2 numpy._core.
    **{f'numpy.{core}.multiarray._reconstruct': _reconstruct for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': _scalar for core in ('core', '_core')},
}


class _Allowance:
    """Lets files use the stand-ins while at least one thread reads a checkpoint.

    PyTorch has one list of allowed names for the whole process. Outside of the ``with`` block
    nothing is added to it; inside, what a program itself has allowed goes on being allowed, but
    for names that have a stand-in.
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
    """The name by which a file reaches an entry of PyTorch's list."""
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


def restore(value: Any) -> Any:
    """Copies what was read, with the real objects in the place of stand-ins.

    Containers are new and hold nothing but their entries; tensors share their numbers with those
    that were read, but have no attributes and hooks of their own.

    Args:
        value: What ``torch.load`` returned while `saved_objects_allowed`.

    Returns:
        The copy.

    Raises:
        UnpicklingError: A container holds itself or is nested too deeply, or what was saved of an
            array or a history is no such thing.
    """
    return _Restoring().restore(value)


class _Restoring:
    def __init__(self) -> None:
        # What occurs in several places stays one object, and is looked at once.
        self._copies: dict[int, Any] = {}

    def restore(self, value: Any, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise UnpicklingError(f'nested more than {_DEEPEST} levels deep')
        if id(value) not in self._copies:
            self._copies[id(value)] = self._copy(value, depth + 1)
        return self._copies[id(value)]

    def _copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        # Methods are taken from the class, as a file may give containers attributes of any name.
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
