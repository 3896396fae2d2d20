"""The configs of heads: the small ones train, and all have the levels and strides of their heads."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from nat_mm.data.model_fit import find_model_problems
from tests.model_zoo import ROOT

CONFIGS = {
    f'{path.parts[-3]}/{path.stem}': path
    for path in sorted((ROOT / 'configs').glob('*/heads/*.py'))
}
SMALL = [name for name in CONFIGS if name.endswith('_nat_demo')]
TRAINED = [name for name in SMALL if 'knn' not in name]
IMAGE = (64, 96)
CLASSES = 2


def load(name: str) -> Config:
    """A config with one layer in each stage, which changes neither levels nor strides."""
    config = Config.fromfile(CONFIGS[name])
    init_default_scope(config.default_scope)
    config.model.backbone.update(depths=(1, 1, 1, 1), init_cfg=None)
    preprocessor = config.model.get('data_preprocessor') or {}
    preprocessor.pop('batch_augments', None)  # They make images as large as COCO's.
    return config


def build(config: Config) -> nn.Module:
    torch.manual_seed(0)
    if 'data_preprocessor' in config:
        # mmpretrain's configs have it beside the model.
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    return MODELS.build(config.model)


def make_batch(scope: str) -> dict:
    """Two random images and their ground truth."""
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *IMAGE), generator=generator, dtype=torch.uint8)
        for _ in range(2)
    ]
    samples = {'mmdet': make_objects, 'mmseg': make_labels, 'mmpretrain': make_classes}[scope]
    return {'inputs': images, 'data_samples': [samples() for _ in images]}


def make_objects():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[8.0, 8, 40, 40], [50, 20, 90, 60]])
    masks = torch.zeros(2, *IMAGE, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=IMAGE,
            ori_shape=IMAGE,
            pad_shape=IMAGE,
            batch_input_shape=IMAGE,
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1]), masks=BitmapMasks(masks.numpy(), *IMAGE)
    )
    sample.ignored_instances = InstanceData(
        bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long)
    )
    return sample


def make_labels():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, *IMAGE, dtype=torch.long)
    labels[:, :, 48:] = 1
    sample = SegDataSample(metainfo=dict(img_shape=IMAGE, ori_shape=IMAGE))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


def make_classes():
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(1)


@pytest.mark.parametrize('name', TRAINED)
def test_small_config_trains(name):
    config = load(name)
    if config.default_scope == 'mmseg':
        config.model.data_preprocessor.size = IMAGE
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert isinstance(wrapper, OptimWrapper)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for _ in range(2):
        losses = model.train_step(make_batch(config.default_scope), wrapper)
        assert all(torch.isfinite(value).all() for value in losses.values())
    print({k: float(v) for k,v in losses.items()})
    print([k for k, v in model.named_parameters() if v.requires_grad and torch.equal(before[k], v)])
    model.eval()
    results = model.test_step(make_batch(config.default_scope))
    print(results[0].keys())
    assert len(results) == 2
