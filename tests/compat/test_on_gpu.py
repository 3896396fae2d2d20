"""Tests that nothing mixes tensors on a GPU and on the CPU, simulated where there is no GPU."""

import mmcv.ops
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmdet.models.task_modules.assigners import PointAssigner
from mmdet.testing import demo_mm_inputs
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from tests.compat.test_models_run import DETECTORS, NUM_CLASSES, build_detector, predict
from tests.simulated_gpu import simulated_gpu

BOXES = torch.tensor([[0.0, 0, 8, 8], [1, 1, 8, 9], [20, 20, 30, 28]])
REGIONS = torch.cat([torch.zeros(3, 1), BOXES], dim=1)
ROTATED = torch.cat([BOXES, torch.full((3, 1), 0.3)], dim=1)
SCORES = torch.tensor([0.9, 0.8, 0.7])
MAP = torch.rand(1, 4, 32, 32)
OPERATORS = {
    'batched_nms': lambda to: mmcv.ops.batched_nms(
        to(BOXES), to(SCORES), to(torch.tensor([0, 0, 1])), {'type': 'nms', 'iou_threshold': 0.5}
    ),
    'soft_nms': lambda to: mmcv.ops.soft_nms(to(BOXES), to(SCORES)),
    'nms_match': lambda to: mmcv.ops.nms_match(to(torch.cat([BOXES, SCORES[:, None]], 1)), 0.5),
    'nms_rotated': lambda to: mmcv.ops.nms_rotated(to(ROTATED), to(SCORES), 0.5),
    'bbox_overlaps': lambda to: mmcv.ops.bbox_overlaps(to(BOXES), to(BOXES)),
    'box_iou_rotated': lambda to: mmcv.ops.box_iou_rotated(to(ROTATED), to(ROTATED)),
    'roi_align': lambda to: mmcv.ops.roi_align(to(MAP), to(REGIONS), 3),
    'roi_align, maximum': lambda to: mmcv.ops.roi_align(to(MAP), to(REGIONS), 3, 1.0, 2, 'max'),
    'roi_pool': lambda to: mmcv.ops.roi_pool(to(MAP), to(REGIONS), 3),
    'deform_roi_pool': lambda to: mmcv.ops.DeformRoIPoolPack((3, 3), 4).to(to.device)(
        to(MAP), to(REGIONS)
    ),
    'deform_conv': lambda to: mmcv.ops.DeformConv2dPack(4, 4, 3, padding=1).to(to.device)(to(MAP)),
    'modulated_deform_conv': lambda to: mmcv.ops.ModulatedDeformConv2dPack(4, 4, 3, padding=1).to(
        to.device
    )(to(MAP)),
    'masked_conv': lambda to: mmcv.ops.MaskedConv2d(4, 4, 3, padding=1).to(to.device)(
        to(MAP), to(MAP)[:, 0] > 0.5
    ),
    'ms_deform_attn': lambda to: MultiScaleDeformableAttnFunction.apply(
        *map(to, (torch.rand(1, 16, 2, 4), torch.tensor([[4, 4]]), torch.tensor([0]))),
        *map(to, (torch.rand(1, 5, 2, 1, 3, 2), torch.rand(1, 5, 2, 1, 3))),
        64,
    ),
    'carafe': lambda to: mmcv.ops.CARAFEPack(4, 2).to(to.device)(to(MAP)),
    'psamask': lambda to: mmcv.ops.PSAMask('collect', (3, 3)).to(to.device)(
        to(torch.rand(1, 9, 4, 4))
    ),
    'sigmoid_focal_loss': lambda to: mmcv.ops.sigmoid_focal_loss(
        to(torch.rand(3, 5)), to(torch.tensor([0, 4, 5]))
    ),
    'softmax_focal_loss': lambda to: mmcv.ops.softmax_focal_loss(
        to(torch.rand(3, 5)), to(torch.tensor([0, 4, 1]))
    ),
}


class To:
    """Copies tensors to a device."""

    def __init__(self, device):
        self.device = device

    def __call__(self, tensor):
        return tensor.to(self.device)


def test_simulation_fails_where_a_gpu_does():
    with simulated_gpu() as gpu:
        values = torch.rand(3, device=gpu)
        for mix in (
            lambda: values + torch.ones(3),
            lambda: torch.arange(3)[values > 0],
            lambda: torch.cat([values, torch.ones(3)]),
            lambda: torch.zeros(3).index_put_((torch.tensor([0]),), values[:1]),
        ):
            with pytest.raises(RuntimeError):
                mix()
        with pytest.raises(TypeError):
            values.numpy()
        for result in (values + torch.tensor(1), values[torch.tensor([0])], values[[0, 2]]):
            assert result.device == gpu
        values[[0]] = 5
        assert values.cpu()[0] == 5


@pytest.mark.parametrize('name', OPERATORS)
def test_operator(name):
    torch.manual_seed(0)
    expected = OPERATORS[name](To(torch.device('cpu')))
    with simulated_gpu() as gpu:
        torch.manual_seed(0)
        result = OPERATORS[name](To(gpu))
        for one, other in zip(tensors(result), tensors(expected), strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', DETECTORS)
def test_detector(name):
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build_detector(name)
        data = demo_mm_inputs(
            1, [[3, 64, 96]], num_items=[3], num_classes=NUM_CLASSES, with_mask=True
        )
        with simulated_gpu() as gpu:
            model.to(gpu)
            losses = model(**model.data_preprocessor(data, training=True), mode='loss')
            loss, _ = model.parse_losses(losses)
            assert loss.device == gpu
            assert torch.isfinite(loss)
            (prediction,) = predict(model, data)
            assert prediction.pred_instances.scores.device == gpu


def test_points_are_assigned():
    points = torch.tensor([[4.0, 4, 8], [12, 4, 8], [8, 8, 16]])
    assigned = PointAssigner(pos_num=1).assign(*points_and_objects(points))
    with simulated_gpu() as gpu:
        on_gpu = PointAssigner(pos_num=1).assign(*points_and_objects(points.to(gpu)))
        assert on_gpu.gt_inds.tolist() == assigned.gt_inds.tolist() == [0, 1, 0]


def points_and_objects(points):
    boxes = points.new_tensor([[0, 0, 34, 30]])
    labels = boxes.new_zeros(1, dtype=torch.long)
    return InstanceData(priors=points), InstanceData(bboxes=boxes, labels=labels)


def tensors(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [each for part in result for each in tensors(part)]
