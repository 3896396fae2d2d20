"""mmseg's FocalLoss fails on a CPU: it takes the last column of the one-hot labels, not the others.

On a GPU, it takes the labels as they are. On both, it refuses the weights of a pixel sampler.
"""

import functools
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.nn import functional

# OneDL's fork is still broken in 1.4.2.
BROKEN_IN = {'mmseg': '<1.5'}
UPSTREAM = 'https://github.com/open-mmlab/mmsegmentation/issues/3249'
MODULES = ('mmseg.models.losses.focal_loss',)


def repair(module: ModuleType) -> None:
    """Gives the loss one-hot labels on a CPU, ignored pixels no weight, and others their own.

    Args:
        module: ``mmseg.models.losses.focal_loss``.
    """
    compute = module.FocalLoss.forward

    @functools.wraps(compute)
    def forward(
        self: Any,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: Any = None,
        reduction_override: str | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        pixels = (len(pred), *pred.shape[2:])
        if weight is not None and weight.shape == pixels:
            weight = weight.flatten()
        if not pred.is_cuda and target.shape == pixels:
            used = target != ignore_index
            target = _one_hot(target.where(used, 0), pred.size(1))
            weight = used.flatten().to(pred) * (1 if weight is None else weight)
        return compute(
            self, pred, target, weight, avg_factor, reduction_override, ignore_index, **kwargs
        )

    module.FocalLoss.forward = forward


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """Converts labels to one channel for each class; a single one is for the label 1.

    Args:
        labels: [batch, ...], int64.
        classes: Number of channels.

    Returns:
        [batch, classes, ...], int64; zeros where a label is the number of classes.
    """
    channels = functional.one_hot(labels, classes + 1).movedim(-1, 1)
    return channels[:, 1:] if classes == 1 else channels[:, :-1]
