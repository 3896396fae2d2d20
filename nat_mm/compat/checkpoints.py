"""Reading mmengine's checkpoints with ``torch.load(weights_only=True)``, the default of PyTorch.

mmengine saves the history of the logged values beside the weights. Everything these need is allowed
by name; anything else that a file wants to construct or call is refused.
"""

import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from types import ModuleType

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_STATISTICS = ('min', 'max', 'current', 'mean')
_HISTORY_DTYPES = ('float64', 'float32', 'int64', 'int32', 'bool')
_REFUSED_GLOBAL = re.compile(r'[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)')


def allow_mmengine_checkpoints() -> None:
    """Allow what mmengine's checkpoints contain besides tensors and plain containers."""
    numpy_functions = {
        'multiarray._reconstruct': np.empty(0).__reduce__()[0],
        'multiarray.scalar': np.float64(0).__reduce__()[0],
    }
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_statistic, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *(type(np.dtype(name)) for name in _HISTORY_DTYPES),
            # numpy 1 writes numpy.core, numpy 2 numpy._core.
            *(
                (function, f'numpy.{core}.{name}')
                for core in ('core', '_core')
                for name, function in numpy_functions.items()
            ),
        ]
    )


def _history_statistic(owner: type, name: str) -> Callable:
    """Serve as ``getattr`` in checkpoints, where HistoryBuffer saves its statistics methods."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr of {owner}, {name!r}')
    return getattr(HistoryBuffer, name)


def run_no_code(module: ModuleType) -> None:
    """Make onedl-mmengine refuse what PyTorch refuses, as mmengine does.

    It reads a refused file a second time with ``weights_only=False``, which runs the code in it,
    and allows the real ``getattr`` in the first place.

    Args:
        module: ``mmengine.runner.checkpoint``.
    """
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = torch.load


@contextmanager
def clear_checkpoint_errors(filename: str) -> Iterator[None]:
    """Turn what PyTorch raises on a bad checkpoint into one line that says what is wrong.

    Args:
        filename: The checkpoint that is read inside the ``with`` block, for the message.

    Raises:
        ValueError: The file carries code, which was not run, or it is damaged or no checkpoint.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        refused = _REFUSED_GLOBAL.search(str(error))
        if refused:
            raise ValueError(
                f'checkpoint {filename} is refused: reading it would run or build '
                f'{refused.group(1)}, which is neither a weight nor something mmengine saves. '
                'Nothing of it was run. If you trust its source, allow that name with '
                'torch.serialization.add_safe_globals.'
            ) from None
        if _is_damaged(filename, error):
            raise ValueError(
                f'checkpoint {filename} ({os.path.getsize(os.path.expanduser(filename))} bytes) '
                'is truncated, damaged, or not a checkpoint that PyTorch can read safely.'
            ) from None
        raise


def _is_damaged(filename: str, error: Exception) -> bool:
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        return False
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in ('corrupted', 'not a ZIP archive'))
    return isinstance(error, UnpicklingError) or not zipfile.is_zipfile(path)
