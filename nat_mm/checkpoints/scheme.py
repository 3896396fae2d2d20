"""``nat_mm://``: checkpoints that mmengine loads into whole models, converted if need be."""

from typing import Any

import torch
from mmengine.runner import CheckpointLoader

from nat_mm.checkpoints.files import extract_state_dict, read_checkpoint
from nat_mm.checkpoints.layouts import convert_weights, find_layout
from nat_mm.checkpoints.meta import read_classes
from nat_mm.checkpoints.weights import as_lazy

SCHEME = 'nat_mm://'


def converted_source(source: str) -> str:
    """Names a checkpoint so that mmengine loads it converted to the layout of a whole model.

    Args:
        source: Local path or URL.

    Returns:
        ``nat_mm://`` and the path or URL, for ``load_from`` or ``init_cfg`` of a whole model.
    """
    return SCHEME + source.removeprefix(SCHEME)


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_nat_mm(
    filename: str, map_location: str | torch.device | None = None
) -> dict[str, Any]:
    """Loads a checkpoint for a whole model.

    Args:
        filename: ``nat_mm://`` and a local path or URL.
        map_location: Device of the tensors.

    Returns:
        What the file holds beside weights, and under ``state_dict`` the weights: those of the
        authors' and Hugging Face's classifiers as :func:`convert_weights` makes them for
        ``model``, others as they are.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, carries code, holds no weights, or classes that
            have no names.
    """
    source = filename.removeprefix(SCHEME)
    checkpoint = read_checkpoint(source, map_location=map_location)
    state_dict = extract_state_dict(checkpoint, source)
    read_classes(checkpoint, source)
    weights = as_lazy(state_dict)
    if find_layout(weights) in ('authors', 'huggingface'):
        converted = convert_weights(weights, to='model', source=source)
        state_dict = {key: weight.whole() for key, weight in converted.items()}
    others = {
        key: value
        for key, value in checkpoint.items()
        if key not in ('model', 'state_dict') and not isinstance(value, torch.Tensor)
    }
    return {**others, 'state_dict': state_dict}
