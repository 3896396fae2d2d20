"""On a GPU, mmdet's PointAssigner indexes a CPU tensor by a GPU tensor, which PyTorch 1.13 forbade.

It assigns RepPoints' points to objects, so that RepPoints could not be trained on a GPU.
"""

import functools
from types import ModuleType
from typing import Any

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = 'https://github.com/open-mmlab/mmdetection/issues/10436'
MODULES = ('mmdet.models.task_modules.assigners.point_assigner',)


def repair(module: ModuleType) -> None:
    """Makes the assigner create its tensors on the device of the points.

    Args:
        module: ``mmdet.models.task_modules.assigners.point_assigner``.
    """
    assign = module.PointAssigner.assign

    @functools.wraps(assign)
    def assign_on_device(self: Any, pred_instances: Any, *others: Any, **named: Any) -> Any:
        with pred_instances.priors.device:
            return assign(self, pred_instances, *others, **named)

    module.PointAssigner.assign = assign_on_device
