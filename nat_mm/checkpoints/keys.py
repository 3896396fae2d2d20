"""From the keys of a checkpoint to those of a backbone."""

from collections.abc import Mapping

import torch

StateDict = Mapping[str, torch.Tensor]

# parts of a classifier that a backbone has no use for; its own output norms are norm0, norm1, ...
CLASSIFIER_PREFIXES = ('norm.', 'head.')


def extract_state_dict(checkpoint: object, source: str) -> StateDict:
    """Finds the state dict in a loaded checkpoint.

    Args:
        checkpoint: What the file holds: a state dict, or one under ``state_dict`` or ``model``.
        source: Name of the file, for errors.

    Returns:
        The state dict.

    Raises:
        ValueError: If there is none.
    """
    candidate = checkpoint
    if isinstance(checkpoint, Mapping):
        for name in ('state_dict', 'model'):
            if isinstance(checkpoint.get(name), Mapping):
                candidate = checkpoint[name]
                break
    if not isinstance(candidate, Mapping) or not any(
        isinstance(value, torch.Tensor) for value in candidate.values()
    ):
        raise ValueError(
            f'{source} holds no state dict: neither at its top nor under "state_dict" or "model"'
        )
    return {key: value for key, value in candidate.items() if isinstance(value, torch.Tensor)}


def to_backbone_keys(state_dict: StateDict, source: str, *, prefix: str | None = None) -> StateDict:
    """Keeps what belongs to the backbone, under the names it has there.

    Args:
        state_dict: Weights of a classifier, or of a detector or segmenter.
        source: Name of the file, for errors.
        prefix: What the backbone's keys begin with. Without it, ``backbone.`` is assumed where
            keys begin with that.

    Returns:
        The backbone's weights, without the prefix and without a classifier's last norm and head.

    Raises:
        ValueError: If no key begins with ``prefix``.
    """
    if prefix is None and any(key.startswith('backbone.') for key in state_dict):
        prefix = 'backbone.'
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        state_dict = {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix)
        }
        if not state_dict:
            raise ValueError(f'no key in {source} begins with prefix {prefix!r}')
    return {
        key: value for key, value in state_dict.items() if not key.startswith(CLASSIFIER_PREFIXES)
    }
