"""Tests that small head configs train and that all have the levels that their heads expect."""

from collections.abc import Sequence

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from nat_mm.data import model_fit
from nat_mm.data.mismatches import measure_stride
from nat_mm.data.model_parts import run_necks
from nat_mm.data.shape_trace import ShapeTrace
from tests.configs.optimizers import find_norms, find_weight_decay
from tests.model_zoo import ROOT

CONFIGS = {
    f'{path.parts[-3]}/{path.stem}': path for path in sorted(ROOT.glob('configs/*/heads/*.py'))
}
SMALL = [name for name in CONFIGS if name.endswith('_nat_demo')]
STANDARD = [name for name in CONFIGS if name not in SMALL]
STRIDES = {
    'detection/retinanet': [8, 16, 32, 64, 128],
    'detection/faster_rcnn': [4, 8, 16, 32, 64],
    'detection/fcos': [8, 16, 32, 64, 128],
    'detection/atss': [8, 16, 32, 64, 128],
    'detection/dino': [8, 16, 32, 64],
    'detection/rtmdet': [8, 16, 32],
    'detection/rtmdet-ins': [8, 16, 32],
    'detection/yolox': [8, 16, 32],
    'detection/mask2former': [4, 8, 16, 32],
    'detection/point_rend': [4, 8, 16, 32, 64],
    'segmentation/segformer': [4, 8, 16, 32],
    'segmentation/point_rend': [4, 8, 16, 32],
}
"""The strides of the maps that each family's heads expect."""

IMAGE = (64, 96)
# Regions and mask points take most of the time.
FEWER = {
    'max_per_img': 5,
    'nms_pre': 50,
    'num_points': 64,
    'subdivision_num_points': 64,
    'subdivision_steps': 1,
}


def load(name: str) -> Config:
    """Loads a config with one layer per stage, which changes neither levels nor strides."""
    config = Config.fromfile(CONFIGS[name])
    init_default_scope(config.default_scope)
    config.model.backbone.update(depths=(1, 1, 1, 1), init_cfg=None)
    return config


def find_family(name: str) -> str:
    return name.partition('_nat_')[0]


def make_batch(config: Config) -> dict:
    """Makes two random images and their ground truth."""
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *IMAGE), generator=generator, dtype=torch.uint8) for _ in range(2)
    ]
    make_sample = {'mmdet': make_objects, 'mmseg': make_labels, 'mmpretrain': make_class}
    return {
        'inputs': images,
        'data_samples': [make_sample[config.default_scope](config) for _ in images],
    }


def make_objects(config: Config) -> object:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[8.0, 8, 40, 40], [50, 20, 90, 60]])
    sample = DetDataSample(
        metainfo=dict(img_id=0, img_shape=IMAGE, ori_shape=IMAGE, scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    if "'with_mask': True" in str(config.train_dataloader):
        masks = torch.zeros(2, *IMAGE, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(masks.numpy(), *IMAGE)
    return sample


def make_labels(config: Config) -> object:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.zeros(1, *IMAGE, dtype=torch.long)
    labels[:, :, IMAGE[1] // 2 :] = 1
    sample = SegDataSample(metainfo=dict(img_shape=IMAGE, ori_shape=IMAGE))
    sample.gt_sem_seg = PixelData(data=labels)
    return sample


def make_class(config: Config) -> object:
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(1)


def build_smaller(config: Config) -> nn.Module:
    """Builds the model for smaller images, with fewer points and layers."""
    # mmpretrain's configs have the preprocessor next to the model.
    preprocessor = config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    preprocessor.pop('batch_augments', None)
    if 'size' in preprocessor:
        preprocessor.size = IMAGE
    for part in (config.model.get('train_cfg'), config.model.get('test_cfg')):
        for each in (part, *(part or {}).values()):
            if isinstance(each, dict):
                each.update({key: value for key, value in FEWER.items() if key in each})
    for part in ('encoder', 'decoder'):
        if part in config.model:
            config.model[part].num_layers = 1
    if config.model.type == 'PointRend':
        # mmdet's PointRend fails if only some images of a batch have no detection.
        config.model.test_cfg.rcnn.score_thr = 0.0
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    if hasattr(model, 'level_embed'):  # uninitialized in DINO before init_weights()
        torch.nn.init.normal_(model.level_embed)
    return model


@pytest.mark.parametrize('name', [name for name in SMALL if 'knn' not in name])
def test_small_config_trains_and_predicts(name):
    config = load(name)
    model = build_smaller(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    losses = []
    for _ in range(2):
        data = model.data_preprocessor(make_batch(config), True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        wrapper.backward(loss)
        # DistributedDataParallel needs a gradient for every parameter.
        assert [key for key, value in trained.items() if value.grad is None] == []
        assert all(torch.isfinite(value.grad).all() for value in trained.values())
        backbone = {key: value for key, value in trained.items() if key.startswith('backbone.')}
        assert [key for key, value in backbone.items() if not value.grad.any()] == []
        wrapper.step()
        wrapper.zero_grad()
        losses.append(loss.item())
    assert losses[0] != losses[1]
    is_probe = 'linear_probe' in name
    assert any(key.startswith('backbone.') for key in trained) != is_probe
    model.eval()
    with torch.no_grad():  # As in testing: PointRend writes into its predictions.
        assert len(model.test_step(make_batch(config))) == 2


@pytest.mark.parametrize('name', CONFIGS)
def test_levels_and_strides(name, monkeypatch):
    config = load(name)
    config.launcher = 'pytorch'
    seen = []

    def run_and_see(trace: ShapeTrace, config: Config, maps: Sequence[Tensor]) -> tuple:
        part, maps = run_necks(trace, config, maps)
        seen.append((trace, maps))
        return part, maps

    monkeypatch.setattr(model_fit, 'run_necks', run_and_see)
    assert list(model_fit.find_model_problems(config)) == []
    if config.default_scope == 'mmpretrain':
        return
    ((trace, maps),) = seen
    strides = STRIDES[find_family(name)]
    assert [measure_stride(trace, each) for each in maps] == [(each, each) for each in strides]
    for assumed in find_assumed_strides(trace.model):
        assert assumed == strides[: len(assumed)]


def find_assumed_strides(model: nn.Module) -> list[list[int]]:
    """Returns the strides of anchors, points and regions."""
    found = []
    for module in model.modules():
        generator = getattr(module, 'prior_generator', None)
        if generator is not None:
            found.append([each[0] for each in generator.strides])
        for name in ('featmap_strides', 'feature_strides'):
            if hasattr(module, name):
                found.append(list(getattr(module, name)))
    return found


@pytest.mark.parametrize('name', STANDARD)
def test_weights_and_colors(name):
    config = Config.fromfile(CONFIGS[name])
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    assert list(preprocessor.mean) == [123.675, 116.28, 103.53]
    assert preprocessor.get('bgr_to_rgb', preprocessor.get('to_rgb')) is True
    if 'knn' not in name:
        assert config.model.backbone.init_cfg.checkpoint.endswith('/nat_tiny.pth')
    assert len(CONFIGS[name].read_text().splitlines()) <= 15


@pytest.mark.parametrize('name', [name for name in SMALL if name.startswith(('det', 'seg'))])
def test_weight_decay_spares_norms_and_rpb(name):
    config = load(name)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    decay = find_weight_decay(model, config)
    spared = {key for key, value in decay.items() if value == 0 and key.startswith('backbone.')}
    tables = {key for key in decay if key.endswith('.rpb')}
    biases = {key for key in spared if key.endswith('.bias')}
    assert len(tables) == 4
    assert spared - biases == (find_norms(model.backbone) | tables) - biases
