"""Builds and runs models on tensors that have shapes and no values."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SMALL = 1000
"""Elements of the largest tensors that have values, such as those that hold sizes of maps."""


class WithoutValues(TorchDispatchMode):
    """Context in which only small tensors have values, those that are computed from numbers alone.

    All others are on the device 'meta', so that even a large model takes neither much time nor much
    memory. A model that is built inside has small weights on the CPU and large ones on 'meta'. A
    model that was built outside runs, too, and stays as it is; values end at an image on 'meta'.

    Raises:
        RuntimeError: Inside of the ``with`` block, if something needs a value that is not there.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not tensors:
            return _make(func, args, kwargs)
        if any(tensor.is_meta for tensor in tensors):
            written = [
                value
                for value, argument in zip(args, func._schema.arguments, strict=False)
                if argument.is_write and isinstance(value, Tensor)
            ]
            if any(not tensor.is_meta for tensor in written):
                raise RuntimeError(f'{func} writes values that are not known')
            args, kwargs = tree_map_only(Tensor, _without_value, (args, kwargs))
        elif func is torch.ops.aten._to_copy.default and tensors[0].numel() <= SMALL:
            # On the device of the image its values would be lost.
            kwargs = {**kwargs, 'device': 'cpu'}
        return func(*args, **kwargs)


def _make(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Calls an operator that takes no tensor."""
    if 'device' not in kwargs:
        return func(*args, **kwargs)
    made = func(*args, **{**kwargs, 'device': 'meta'})
    return func(*args, **{**kwargs, 'device': 'cpu'}) if made.numel() <= SMALL else made


def _without_value(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device='meta')
