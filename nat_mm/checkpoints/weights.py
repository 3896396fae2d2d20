"""Weights that stay in their file until they are used."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """Tensors that together are one, joined along the first axis only when it is asked for.

    Those of a memory-mapped file, and views of them, use up no memory.

    Attributes:
        parts: The tensors, of the same shape and dtype.
    """

    parts: tuple[torch.Tensor, ...]

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole."""
        first = self.parts[0].shape
        if len(self.parts) == 1:
            return first
        return torch.Size([len(self.parts) * first[0], *first[1:]])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the whole."""
        return self.parts[0].dtype

    def whole(self) -> torch.Tensor:
        """The whole; a single part is not copied."""
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)

    def copy_to(self, target: torch.Tensor) -> None:
        """Writes the whole to a tensor of its shape and dtype, without memory in between."""
        if len(self.parts) == 1:
            target.copy_(self.parts[0])
        else:
            torch.cat(self.parts, out=target)


LazyWeights = Mapping[str, LazyTensor]
"""Weights by key."""


def as_lazy(state_dict: Mapping[str, torch.Tensor]) -> dict[str, LazyTensor]:
    """Wraps the tensors of a state dict."""
    return {key: LazyTensor((tensor,)) for key, tensor in state_dict.items()}


def rename(key: str, names: Mapping[str, str]) -> str:
    """Replaces the beginning of a key.

    Args:
        key: The key.
        names: New beginnings by old ones; the first that fits is used.

    Returns:
        The new key, or the old one if none fits.
    """
    for old, new in names.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def join_rows(parts: Sequence[LazyTensor], *, name: str) -> LazyTensor:
    """Concatenates tensors along their first axis.

    Args:
        parts: The tensors, ``[N, ...]``.
        name: What they are, for the error.

    Returns:
        The tensor ``[len(parts) * N, ...]``.

    Raises:
        ValueError: If their shapes or dtypes differ.
    """
    tensors = tuple(part.whole() for part in parts)
    if len({(tensor.shape, tensor.dtype) for tensor in tensors}) > 1:
        listed = ', '.join(f'{tensor.dtype} {list(tensor.shape)}' for tensor in tensors)
        raise ValueError(f'the parts of {name} must have one shape and dtype, got {listed}')
    return LazyTensor(tensors)


def cut_rows(whole: LazyTensor, count: int, *, name: str) -> list[LazyTensor]:
    """Cuts a tensor along its first axis, the inverse of :func:`join_rows`.

    Args:
        whole: The tensor, ``[count * N, ...]``.
        count: Number of parts.
        name: What it is, for the error.

    Returns:
        The parts, ``[N, ...]``.

    Raises:
        ValueError: If ``count`` does not divide the length of the axis.
    """
    if not whole.shape or whole.shape[0] % count:
        raise ValueError(f'{name} must have {count} equal parts, got shape {list(whole.shape)}')
    return [LazyTensor((part,)) for part in whole.whole().chunk(count)]
