"""Builds and runs models on tensors that have shapes but no values."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SMALL = 1000
"""Maximum number of elements of tensors with values, such as those that contain map sizes."""


class WithoutValues(TorchDispatchMode):
    """Context in which only small tensors that are computed from numbers alone have values.

    All other tensors are on the device 'meta', so that even a large model takes little time and
    memory. A model built inside the context has small weights on the CPU and large ones on 'meta'.
    A model built outside also runs and stays unchanged: what is computed from an image on 'meta'
    has no values.

    Raises:
        RuntimeError: Inside the ``with`` block, if something needs a value that does not exist.
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
            # Its values would be lost on the device of the image, 'meta'.
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
