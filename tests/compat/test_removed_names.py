"""Tests what uses names or behavior that NumPy or Python removed."""

import copy
import logging
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.utils.dl_utils import mmcv_full_available

from nat_mm.compat import load

RANKING = {
    'pred': torch.tensor([[0.9, 0.5, 0.7]]),
    'target': [[2]],
    'topk': 3,
    'target_indices': True,
}
"""One query whose only match ranks second."""


def evaluate_one_video() -> float:
    """Returns the average precision of YouTube-VIS when the only track is found."""
    from mmdet.evaluation.functional.ytviseval import YTVISeval

    evaluation = YTVISeval()
    evaluation.params.vidIds, evaluation.params.catIds = [1], [1]
    thresholds = len(evaluation.params.iouThrs)
    found = {
        'dtScores': [0.9],
        'dtMatches': np.ones((thresholds, 1)),
        'dtIgnore': np.zeros((thresholds, 1)),
        'gtIgnore': np.zeros(1),
    }
    evaluation.evalImgs = [found] * len(evaluation.params.areaRng)
    evaluation._paramsEval = copy.deepcopy(evaluation.params)
    evaluation.accumulate()
    return evaluation.eval['precision'].min()


def evaluate_one_category() -> float:
    """Returns the average precision of LVIS when the only object of its category is found."""
    from lvis import LVISEval
    from lvis.eval import Params

    evaluation = LVISEval.__new__(LVISEval)
    evaluation.params = Params('bbox')
    evaluation.params.img_ids, evaluation.params.cat_ids = [1], [1]
    thresholds = len(evaluation.params.iou_thrs)
    found = {
        'dt_ids': [1],
        'dt_scores': [0.9],
        'dt_matches': np.ones((thresholds, 1)),
        'dt_ignore': np.zeros((thresholds, 1)),
        'gt_ignore': np.zeros(1),
    }
    evaluation.eval_imgs = [found] * len(evaluation.params.area_rng)
    evaluation.logger = logging.getLogger('lvis')
    evaluation.accumulate()
    return evaluation.eval['precision'].min()


def evaluate_proposals() -> np.ndarray:
    """Returns the recall for the first proposal and for the first two.

    One image has two objects and two proposals that fit, another one object and one that does not.
    """
    from mmdet.evaluation.functional import eval_recalls

    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], dtype=np.float32)
    return eval_recalls([boxes, boxes[:1]], [boxes, boxes[1:]], (1, 2), 0.5, logger='silent')


def test_youtube_vis():
    assert evaluate_one_video() == pytest.approx(1)


def test_lvis():
    pytest.importorskip('lvis')
    assert evaluate_one_category() == pytest.approx(1)


def test_lvis_gets_the_name_back():
    """Also without the package, which the tests' environment need not have."""
    module = ModuleType('lvis.eval')
    module.np = np
    load('lvis_metric').repair(module)
    assert np.cumsum([True, True]).astype(module.np.float).tolist() == [1, 2]
    assert module.np.cumsum is np.cumsum


def test_recall_of_proposals():
    np.testing.assert_allclose(evaluate_proposals(), [[1 / 3], [2 / 3]])


def test_retrieval():
    from mmpretrain.evaluation.metrics import RetrievalAveragePrecision

    assert RetrievalAveragePrecision.calculate(**RANKING) == pytest.approx(50)


def test_compiled_operators_are_found():
    assert mmcv_full_available()  # nat_mm serves them if mmcv has none


def test_numpy_itself_stays_as_it_is():
    import mmdet.evaluation.functional.ytviseval
    import mmpretrain.evaluation.metrics.retrieval  # noqa: F401

    assert not hasattr(np, 'float')
    assert mmdet.evaluation.functional.ytviseval.np.float64 is np.float64
