"""mmseg's CrossEntropyLoss fails on some labels with ignored pixels and misplaces class weights.

With ``class_weight``, the official release looks up the weight of ``ignore_index`` too: an
IndexError, or a device-side assertion on a GPU. OneDL's fork looks up only the others, but with
``avg_non_ignore`` it then indexes the shorter result as if it were an image, even if no pixel is
ignored. With ``use_sigmoid`` and one channel, both take the largest label that is not ignored, and
there may be none; with several, they apply the class weights to the columns of the image.
"""

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# OneDL's fork is still broken in 1.4.2.
BROKEN_IN = {'mmseg': '<1.5'}
UPSTREAM = (
    'https://github.com/open-mmlab/mmsegmentation/issues/3734, '
    'https://github.com/open-mmlab/mmsegmentation/issues/2310, '
    'https://github.com/open-mmlab/mmsegmentation/issues/2723'
)
MODULES = ('mmseg.models.losses.cross_entropy_loss',)


def repair(module: ModuleType) -> None:
    """Gives ignored pixels no weight in the losses, and each channel that of its class.

    Args:
        module: ``mmseg.models.losses.cross_entropy_loss``.
    """
    compute = module.cross_entropy
    compute_binary = module.binary_cross_entropy

    @functools.wraps(compute)
    def cross_entropy(
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        reduction: str = 'mean',
        avg_factor: Any = None,
        ignore_index: int = -100,
        avg_non_ignore: bool = False,
    ) -> Tensor:
        # If ignore_index is a class, the lookup works, and whether its pixels count without
        # avg_non_ignore is left to the release.
        if (
            class_weight is not None
            and reduction == 'mean'
            and avg_factor is None
            and (avg_non_ignore or not 0 <= ignore_index < len(class_weight))
        ):
            avg_factor = _sum_weights(label, class_weight, ignore_index)
        return compute(
            pred, label, weight, class_weight, reduction, avg_factor, ignore_index, avg_non_ignore
        )

    @functools.wraps(compute_binary)
    def binary_cross_entropy(
        pred: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        reduction: str = 'mean',
        avg_factor: Any = None,
        class_weight: Tensor | None = None,
        ignore_index: int | None = -100,
        avg_non_ignore: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        if pred.size(1) == 1 and ignore_index is not None and (label == ignore_index).all():
            # Zeros with a weight of 0 have the same loss, 0.
            label = torch.zeros_like(label)
            weight, ignore_index = torch.zeros_like(label, dtype=pred.dtype), -100
        if class_weight is not None and pred.dim() == 4 and pred.size(1) > 1:
            class_weight = class_weight.reshape(-1, 1, 1)
        return compute_binary(
            pred,
            label,
            weight,
            reduction,
            avg_factor,
            class_weight,
            ignore_index,
            avg_non_ignore,
            **kwargs,
        )

    module.cross_entropy = cross_entropy
    module.binary_cross_entropy = binary_cross_entropy


def _sum_weights(label: Tensor, class_weight: Tensor, ignore_index: int) -> Tensor:
    """Returns the sum of the class weights of all pixels that are not ignored."""
    # Clamped, labels that are wrong get to PyTorch's cross_entropy, which names them.
    weights = class_weight[label.clamp(0, len(class_weight) - 1)]
    return weights.masked_fill(label == ignore_index, 0).sum()
