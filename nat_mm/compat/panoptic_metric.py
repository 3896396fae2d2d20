"""mmdet's panoptic metric modifies the predictions that it evaluates.

It relabels void pixels as 0, the label of the first class. On a GPU it does so in a copy, but on a
CPU, hooks that draw after the metric would paint all void pixels as the first class.
"""

import functools
from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmdet.evaluation.metrics.coco_panoptic_metric',)


def repair(module: ModuleType) -> None:
    """Makes CocoPanopticMetric work on a copy of each prediction.

    Args:
        module: ``mmdet.evaluation.metrics.coco_panoptic_metric``.
    """
    parse = module.CocoPanopticMetric._parse_predictions

    @functools.wraps(parse)
    def parse_copy(self, pred: dict, *args, **kwargs) -> dict:
        segments = pred['pred_panoptic_seg']
        copy = {**segments, 'sem_seg': segments['sem_seg'].clone()}
        return parse(self, {**pred, 'pred_panoptic_seg': copy}, *args, **kwargs)

    module.CocoPanopticMetric._parse_predictions = parse_copy
