"""Tests OpenMMLab without the repairs; a test fails once upstream no longer needs its repair.

What a repair replaces remains available as ``__wrapped__``.
"""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import sys
import warnings
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import cv2
import mmcv
import mmengine.config.utils
import mmengine.runner.checkpoint
import mmengine.utils.dl_utils.misc
import numpy as np
import pkg_resources
import pytest
import torch
from mmengine._strategy import DDPStrategy, FSDPStrategy
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, logger_hook
from mmengine.logging import HistoryBuffer
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import CheckpointLoader, Runner, save_checkpoint
from mmengine.structures import PixelData
from mmengine.utils import is_installed, package_utils
from mmengine.visualization import Visualizer
from packaging.version import Version
from torch._dynamo.utils import counters
from torch.distributed.fsdp import FullyShardedDataParallel

from nat_mm.checkpoints import read_checkpoint
from nat_mm.compat import REPAIRS, STAND_INS, find_status, installed_version, noise
from tests.compat.regression import train
from tests.compat.test_compiled_training import train_compiled
from tests.compat.test_on_gpu import points_and_objects
from tests.compat.test_openimages import make_challenge
from tests.compat.test_pasted_masks import OUTSIDE, paste_masks
from tests.compat.test_postscript import GhostscriptError, load_with_mmcv, program  # noqa: F401
from tests.compat.test_removed_names import (
    RANKING,
    evaluate_one_category,
    evaluate_one_video,
    evaluate_proposals,
)
from tests.compat.test_scores_file import end_test_epoch
from tests.compat.test_ssd import predict_with_ssd
from tests.simulated_gpu import simulated_gpu

THIS_MODULE = sys.modules[__name__]
IS_FORK = is_installed('onedl-mmengine')


@contextmanager
def still_broken(name, errors=AssertionError):
    """Wraps code that upstream should support but that fails with one of these errors."""
    status = find_status(name)
    if not status.active:
        pytest.skip(f'not needed here: {status.reason}')
    try:
        yield
    except errors:
        return
    pytest.fail(
        f'upstream works without nat_mm.compat.{name}: lower the bound in its BROKEN_IN, or delete '
        'it, if every supported release does'
    )


@pytest.mark.parametrize('name', [*REPAIRS, *STAND_INS])
def test_every_repair_is_tested_here(name):
    assert hasattr(THIS_MODULE, f'test_{name}')


def test_a_repair_that_upstream_needs_no_more_is_named():
    message = 'without nat_mm.compat.bf16_boxes: lower'
    with pytest.raises(pytest.fail.Exception, match=message), still_broken('bf16_boxes'):
        pass


def test_bf16_boxes():
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    layer = {'type': 'RoIAlign', 'output_size': 1, 'sampling_ratio': 1}
    extractor = SingleRoIExtractor(roi_layer=layer, out_channels=1, featmap_strides=[4])
    columns = torch.arange(256.0).expand(1, 1, 4, 256).bfloat16()
    regions = torch.tensor([[0, 1001.0, 4, 1005, 8]])
    with still_broken('bf16_boxes'):
        pooled = SingleRoIExtractor.forward.__wrapped__(extractor, [columns], regions)
        assert pooled.item() == pytest.approx(1003 / 4 - 0.5)


def test_checkpoint_configs(tmp_path, monkeypatch):
    train(tmp_path, 1, 'upstream-config')
    content = read_checkpoint(str(tmp_path / 'epoch_1.pth'))
    for key in ('config', 'cfg'):
        content['meta'][key] = f'__import__("os").mkdir({str(tmp_path / "ran")!r})\n'
    torch.save(content, tmp_path / 'evil.pth')
    monkeypatch.setattr(Runner, 'resume', inspect.unwrap(Runner.resume))
    with still_broken('checkpoint_configs'):
        train(tmp_path, 2, 'upstream-resumed', load_from=str(tmp_path / 'evil.pth'), resume=True)
        assert not (tmp_path / 'ran').exists()


def test_coco_annotations():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    box = {'image_id': 0, 'category_id': 1, 'bbox': [0, 0, 9, 9], 'area': 81}
    truth.dataset = {
        'images': [{'id': 0, 'width': 20, 'height': 20}],
        'categories': [{'id': 1, 'name': 'box'}],
        'annotations': [{**box, 'id': 0}],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes([{**box, 'score': 1.0}]), 'bbox')
    with still_broken('coco_annotations', (AssertionError, KeyError)):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)


def test_ddp_checkpoints():
    strategy = SimpleNamespace(model=torch.nn.DataParallel(torch.nn.Linear(2, 3)))
    assert list(DDPStrategy.model_state_dict(strategy)) == ['weight', 'bias']
    with still_broken('ddp_checkpoints'):
        assert list(DDPStrategy.model_state_dict.__wrapped__(strategy)) == ['weight', 'bias']


def test_find_loader(monkeypatch):
    # OneDL's fork does not import it.
    monkeypatch.setattr(mmengine.utils.dl_utils.misc, 'pkgutil', pkgutil, raising=False)
    with still_broken('find_loader', AttributeError):
        mmengine.utils.dl_utils.mmcv_full_available()


def test_fork_configs():
    source = inspect.getsource(mmengine.config.utils)
    (distribution,) = re.findall(r"'mmseg': '([\w-]+)'", source)
    with still_broken('fork_configs'):
        assert is_installed(distribution)


def test_fsdp(monkeypatch):
    model = torch.nn.Linear(2, 3)
    wrapper = SimpleNamespace(optimizer=torch.optim.SGD(model.parameters()), load_state_dict=list)
    signature = inspect.signature(FullyShardedDataParallel.optim_state_dict_to_load)

    def check(*args, **kwargs):
        assert signature.bind(*args, **kwargs).arguments['model'] is model
        return {}

    monkeypatch.setattr(FullyShardedDataParallel, 'optim_state_dict_to_load', check)
    strategy = SimpleNamespace(model=model, optim_wrapper=wrapper)
    FSDPStrategy.load_optim_state_dict(strategy, {})
    with still_broken('fsdp'):
        FSDPStrategy.load_optim_state_dict.__wrapped__(strategy, {})


@pytest.mark.parametrize(
    ('ignored', 'options'),
    [
        (1, {'class_weight': [1.0]}),
        (1, {'class_weight': [1.0], 'avg_non_ignore': True}),
        (4 * 6, {'use_sigmoid': True}),
        (4 * 6, {'class_weight': [1.0, 2.0], 'use_sigmoid': True}),
    ],
    ids=['class_weight', 'avg_non_ignore', 'sigmoid', 'sigmoid-class_weight'],
)
def test_cross_entropy(ignored, options, monkeypatch):
    from mmseg.models.losses import cross_entropy_loss

    if IS_FORK and options == {'class_weight': [1.0]}:
        pytest.skip('the fork looks up no weights of ignored pixels')
    for name in ('cross_entropy', 'binary_cross_entropy'):
        upstream = getattr(cross_entropy_loss, name).__wrapped__
        monkeypatch.setattr(cross_entropy_loss, name, upstream)
    label = torch.zeros(1, 4, 6, dtype=torch.long)
    label.view(-1)[:ignored] = 255
    with still_broken('cross_entropy', (IndexError, RuntimeError)):
        loss = cross_entropy_loss.CrossEntropyLoss(**options)
        channels = len(options.get('class_weight', [1.0]))
        assert loss(torch.ones(1, channels, 4, 6), label, ignore_index=255) == 0


def test_focal_loss():
    from mmseg.models.losses import FocalLoss

    compute = inspect.unwrap(FocalLoss.forward)
    with still_broken('focal_loss', RuntimeError):
        compute(FocalLoss(), torch.ones(1, 2, 4, 6), torch.zeros(1, 4, 6, dtype=torch.long))


def test_openimages(tmp_path):
    dataset = make_challenge(tmp_path)
    with still_broken('openimages', KeyError):
        for each in inspect.unwrap(type(dataset).load_data_list)(dataset)[0]['instances']:
            each['is_group_of']


def test_infinite_numbers():
    with still_broken('infinite_numbers'):
        text = inspect.unwrap(Config.pretty_text.fget)(Config({'interval': float('inf')}))
        assert 'float' in text


def test_lazy_configs():
    with still_broken('lazy_configs'):
        assert inspect.unwrap(mmengine.config.utils._is_builtin_module)('os.path')


def test_mmcv_ops(monkeypatch):
    others = [each for each in sys.meta_path if type(each).__module__ != 'nat_mm_startup']
    monkeypatch.setattr(sys, 'meta_path', others)
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    with still_broken('mmcv_ops', ModuleNotFoundError):
        importlib.import_module('mmcv._ext')


def test_multimodal():
    removed = {
        ('transformers.modeling_utils', 'apply_chunking_to_forward'),
        ('transformers.pytorch_utils', 'find_pruneable_heads_and_indices'),
    }
    spec = importlib.util.find_spec('mmpretrain')
    if spec is None:
        pytest.skip('mmpretrain is not installed')
    imported = set()
    for path in Path(spec.origin).parent.glob('models/multimodal/*/*.py'):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                imported |= {(node.module, each.name) for each in node.names}
    with still_broken('multimodal'):
        assert not removed & imported


def import_pkg_resources():
    assert 'import pkg_resources' in inspect.getsource(package_utils)
    return find_warning(pkg_resources, 'pkg_resources is deprecated as an API')


def build_loss():
    from mmseg.models.builder import build_loss

    build_loss(dict(type=torch.nn.L1Loss))


def wrap_model():
    assert 'broadcast_buffers' in inspect.getsource(Runner.wrap_model)
    return find_warning(torch.nn.parallel.distributed, '`broadcast_buffers` is deprecated')


def find_warning(module, text):
    return text if text in inspect.getsource(module) else ''


def make_points():
    from mmdet.models.task_modules.prior_generators import MlvlPointGenerator

    torch.set_warn_always(True)
    try:
        MlvlPointGenerator([4]).single_level_grid_priors((2, 3), level_idx=0, device='cpu')
    finally:
        torch.set_warn_always(False)


NOISE = (
    import_pkg_resources,
    build_loss,
    lambda: PixelData(data=torch.ones(2, 2)),
    wrap_model,
    make_points,
    lambda: amp_optimizer_wrapper.GradScaler(enabled=False),
)
HEALED_IN_FORK = ('pkg_resources', r'`torch\.cuda')
WARNS_SINCE = {
    'pkg_resources is deprecated as an API': ('setuptools', '80.9'),
    '`broadcast_buffers` is deprecated': ('torch', '2.13'),
}
"""The first releases whose users see a warning, if not all releases that nat_mm allows warn."""


@pytest.mark.parametrize(
    ('cause', 'message'),
    [(cause, message) for cause, (message, _) in zip(NOISE, noise.MESSAGES, strict=True)],
    ids=[message for message, _ in noise.MESSAGES],
)
def test_noise(cause, message):
    if IS_FORK and message.startswith(HEALED_IN_FORK):
        pytest.skip('the fork does not warn')
    package, first = WARNS_SINCE.get(message, ('torch', '0'))
    if Version(installed_version(package)) < Version(first):
        pytest.skip(f'{package} warns since {first}')
    with warnings.catch_warnings(record=True) as caught, still_broken('noise'):
        warnings.simplefilter('always')
        texts = [cause() or '', *(str(each.message) for each in caught)]
        assert not any(re.match(message, text) for text in texts if isinstance(text, str))


def test_outdated_checkpoints(tmp_path, monkeypatch):
    events = []
    remove, save = os.remove, Runner.save_checkpoint
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        monkeypatch.setattr(CheckpointHook, name, getattr(CheckpointHook, name).__wrapped__)
    monkeypatch.setattr(os, 'remove', lambda *a: (events.append('remove'), remove(*a))[1])
    monkeypatch.setattr(
        Runner, 'save_checkpoint', lambda *a, **k: (events.append('save'), save(*a, **k))[1]
    )
    hook = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1)
    train(tmp_path, 2, 'upstream-outdated', default_hooks={'checkpoint': hook})
    assert sorted(events) == ['remove', 'save', 'save']
    with still_broken('outdated_checkpoints'):
        assert events == ['save', 'save', 'remove']


def test_panoptic_images():
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer()
    image, void = np.zeros((40, 60, 3), np.uint8), torch.full((1, 40, 60), 2)
    classes, palette = ['thing', 'stuff'], [(250, 0, 0), (0, 250, 0)]
    draw = DetLocalVisualizer._draw_panoptic_seg.__wrapped__
    with still_broken('panoptic_images', Exception):
        draw(visualizer, image, PixelData(sem_seg=void), classes, palette)


def test_panoptic_metric(tmp_path):
    from mmdet.evaluation import CocoPanopticMetric

    classes = {'classes': ['thing', 'stuff']}
    metric = SimpleNamespace(dataset_meta=classes, seg_out_dir=str(tmp_path))
    segments = torch.full((1, 4, 6), 2)
    prediction = {'pred_panoptic_seg': {'sem_seg': segments}}
    with still_broken('panoptic_metric'):
        parse = CocoPanopticMetric._parse_predictions.__wrapped__
        parse(metric, prediction, img_id=1, segm_file='a.png')
        assert (segments == 2).all()


def test_panopticapi():
    from mmdet.evaluation.functional import panoptic_utils

    with still_broken('panopticapi'):
        needs_it = 'from panopticapi' in inspect.getsource(panoptic_utils)
        assert not needs_it or PathFinder.find_spec('panopticapi') is not None


def test_plain_texts():
    draw = inspect.unwrap(Visualizer.draw_texts)
    visualizer = Visualizer()
    visualizer.set_image(np.zeros((40, 60, 3), np.uint8))
    draw(visualizer, '$a_{$', np.array([2, 2]))
    with still_broken('plain_texts', ValueError):
        visualizer.get_image()


def test_compiled_training(monkeypatch, tmp_path):
    def count_programs(folder):
        counters.clear()
        train_compiled(folder)
        return counters['stats']['unique_graphs']

    of_the_model = count_programs(tmp_path / 'repaired')
    monkeypatch.setattr(Runner, '_maybe_compile', Runner._maybe_compile.__wrapped__)
    errors = (torch._dynamo.exc.InternalTorchDynamoError, AssertionError)
    with still_broken('compiled_training', errors):
        assert count_programs(tmp_path / 'upstream') == of_the_model


def test_scores_file(monkeypatch, tmp_path):
    monkeypatch.setattr(logger_hook, 'dump', logger_hook.dump.__wrapped__)
    with still_broken('scores_file'):
        end_test_epoch(1, monkeypatch, tmp_path)
        assert not list(tmp_path.iterdir())


def test_retrieval(monkeypatch):
    from mmpretrain.evaluation.metrics import retrieval

    monkeypatch.setattr(retrieval, 'np', np)
    with still_broken('retrieval', AttributeError):
        retrieval.RetrievalAveragePrecision.calculate(**RANKING)


def test_safe_checkpoints(tmp_path):
    path = tmp_path / 'history.pth'
    torch.save({'history': HistoryBuffer([1.0], [1])}, path)
    assert CheckpointLoader.load_checkpoint(str(path))['history'].mean() == 1
    with still_broken('safe_checkpoints', (UnpicklingError, AssertionError)):
        if hasattr(mmengine.runner.checkpoint, '_safe_torch_load'):
            assert 'weights_only=False' not in inspect.getsource(mmengine.runner.checkpoint)
        else:
            inspect.unwrap(CheckpointLoader.load_checkpoint)(str(path))


def test_seg_visualizer():
    from mmseg.visualization import SegLocalVisualizer

    image = np.zeros((3, 40, 60), np.uint8).transpose(1, 2, 0)
    segments = PixelData(data=torch.ones(1, 40, 60, dtype=torch.long))
    draw = inspect.unwrap(SegLocalVisualizer._draw_sem_seg)
    with still_broken('seg_visualizer', cv2.error):
        draw(SegLocalVisualizer(), image, segments, ['a', 'b'], [[0, 0, 0], [9, 9, 9]])


def test_ssd(monkeypatch):
    from mmdet.models.dense_heads import SSDHead

    with still_broken('ssd', AttributeError):
        monkeypatch.delattr(SSDHead, 'loss_cls')
        predict_with_ssd()


def test_whole_checkpoints(tmp_path, monkeypatch):
    renamed = []
    for name in ('replace', 'rename'):
        monkeypatch.setattr(os, name, lambda *paths: renamed.append(paths))
    inspect.unwrap(save_checkpoint)({'state_dict': {}}, str(tmp_path / 'epoch_1.pth'))
    with still_broken('whole_checkpoints'):
        assert renamed


def test_youtube_vis(monkeypatch):
    from mmdet.evaluation.functional import ytviseval

    monkeypatch.setattr(ytviseval, 'np', np)
    with still_broken('youtube_vis', AttributeError):
        evaluate_one_video()


def test_lvis_metric(monkeypatch):
    with still_broken('lvis_metric', AttributeError):
        monkeypatch.setattr('lvis.eval.np', np)
        evaluate_one_category()


def test_hue():
    adjust = inspect.unwrap(mmcv.adjust_hue)
    with still_broken('hue', OverflowError):
        adjust(np.zeros((2, 2, 3), np.uint8), -0.1)


def test_proposal_recall(monkeypatch):
    from mmdet.evaluation.functional import recall

    monkeypatch.setattr(recall, 'np', np)
    with still_broken('proposal_recall', ValueError):
        evaluate_proposals()


def test_pasted_masks():
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head

    with still_broken('pasted_masks', RuntimeError):
        paste_masks(inspect.unwrap(fcn_mask_head._do_paste_mask), OUTSIDE[0])


def test_point_assigner():
    from mmdet.models.task_modules.assigners import PointAssigner

    assign = inspect.unwrap(PointAssigner.assign)
    with simulated_gpu() as gpu, still_broken('point_assigner', RuntimeError):
        assign(PointAssigner(), *points_and_objects(torch.ones(4, 3, device=gpu)))


def test_postscript(monkeypatch, program):  # noqa: F811
    import mmcv.image.io
    from PIL import Image

    monkeypatch.setattr(mmcv.image.io, 'Image', Image)
    with still_broken('postscript', GhostscriptError):
        load_with_mmcv(program)
