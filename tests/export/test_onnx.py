"""Tests exported models in onnxruntime and OpenVINO."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmcv.image import rescale_size
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor

from nat_mm.errors import UserError
from nat_mm.export.files import write_model
from nat_mm.export.model import model_to_onnx
from nat_mm.export.operators import centers, crop, highest, resize, suppress
from nat_mm.export.preprocessing import Preprocessing, image_front, read_preprocessing
from nat_mm.export.verification import (
    agreement,
    compare,
    generated_images,
    onnxruntime_runtime,
    openvino_runtime,
)
from nat_mm.inference.inputs import Frame
from nat_mm.inference.model import Model
from nat_mm.inference.model_settings import small_images_padded, smallest_input

Build = Callable[..., Model]

TENSORRT = set((Path(__file__).parent / 'tensorrt_operators.txt').read_text().split())
TINY = dict(
    embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], kernel_size=3, out_indices=(0, 1, 2)
)
RUNTIMES = {'onnxruntime': onnxruntime_runtime, 'openvino': openvino_runtime}


@pytest.fixture(scope='module')
def mask_rcnn(detector: Build) -> Model:
    return detector('Mask R-CNN')


@pytest.fixture(scope='module')
def exported(mask_rcnn: Model) -> onnx.ModelProto:
    """Mask R-CNN exported for preprocessed images."""
    return model_to_onnx(mask_rcnn, preprocess=False)


@pytest.fixture(scope='module')
def file(
    exported: onnx.ModelProto, mask_rcnn: Model, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp('exported') / 'mask_rcnn.onnx'
    written = write_model(exported, path, mask_rcnn, preprocess=False)
    assert written.compared > 60
    return path


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_mask_rcnn(file: Path, mask_rcnn: Model, runtime: str) -> None:
    """The images differ in size from those that the export and its own check use."""
    if runtime == 'openvino':
        pytest.importorskip('openvino')
    run = RUNTIMES[runtime](file)
    alike = [
        each
        for image in generated_images(((90, 300), (300, 90)))
        for each in compare(mask_rcnn, run, image, preprocess=False)
    ]
    assert len(alike) > 40
    assert agreement(alike) > 0.97
    found = run(np.zeros((1, 3, 70, 80), np.float32))
    assert found['masks'].shape == (len(found['boxes']), 70, 80)


def test_operators_are_those_that_tensorrt_lists(exported: onnx.ModelProto) -> None:
    assert {node.op_type for node in exported.graph.node} <= TENSORRT
    onnx.checker.check_model(exported, full_check=True)


def test_nothing_is_left_of_a_model_that_differs(
    exported: onnx.ModelProto, detector: Build, tmp_path: Path
) -> None:
    other = detector('Mask R-CNN')
    torch.nn.init.normal_(other.module.roi_head.bbox_head.fc_cls.weight)
    message = 'onnxruntime and PyTorch agree on .* of the objects in 3 images, less than 99%'
    with pytest.raises(ArithmeticError, match=message):
        write_model(exported, tmp_path / 'out.onnx', other, preprocess=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('scale', [(1333, 800), (2048, 512), (100, 100)], ids=str)
def test_sizes_are_those_of_mmcv(scale: tuple[int, int]) -> None:
    """The exported formula gives the same integers for many sizes."""
    rng = np.random.default_rng(0)
    for height, width in rng.integers(32, 4000, (500, 2)).tolist():
        sides = np.array([height, width])
        longest, shortest = sides.max(), sides.min()
        content = np.minimum(
            (sides * 2 * max(scale) + longest) // (2 * longest),
            (sides * 2 * min(scale) + shortest) // (2 * shortest),
        )
        assert tuple(content[::-1]) == rescale_size((width, height), scale)


def test_another_pipeline_is_refused(detector: Build) -> None:
    model = detector('Mask R-CNN', [dict(type='RandomFlip', prob=0.5)])
    message = re.escape('RandomFlip of the test pipeline cannot be exported')
    with pytest.raises(ValueError, match=message):
        read_preprocessing(model.config, model.module.data_preprocessor)


def test_detector_without_resize_is_refused(detector: Build) -> None:
    with pytest.raises(ValueError, match='the test pipeline has no Resize'):
        model_to_onnx(detector('Mask R-CNN'), preprocess=True)


@pytest.mark.parametrize('preprocess', [False, True], ids=['plain', 'preprocess'])
def test_images_with_four_channels_are_refused(segmentor: Build, preprocess: bool) -> None:
    model = segmentor()
    model.module.backbone = MODELS.build(dict(type='NAT', **TINY, in_channels=4))
    with pytest.raises(UserError, match='images with 3 channels, and its backbone has in_ch'):
        model_to_onnx(model, preprocess=preprocess)


RESIZES: dict[str, list[dict[str, Any]]] = {
    'none': [],
    'ratio': [dict(type='Resize', scale=(200, 128), keep_ratio=True)],
    'short side': [dict(type='Resize', scale=(float('inf'), 100), keep_ratio=True)],
    'fixed': [dict(type='Resize', scale=(150, 90), keep_ratio=False)],
}


def front_session(settings: Preprocessing) -> onnxruntime.InferenceSession:
    front = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> {image_front(settings)}'
    )
    onnx.checker.check_model(front, full_check=True)
    assert {node.op_type for node in front.graph.node} <= TENSORRT
    return onnxruntime.InferenceSession(front.SerializeToString())


@pytest.mark.parametrize('resize', RESIZES)
def test_images_are_prepared_as_in_the_pipeline(detector: Build, resize: str) -> None:
    model = detector('RetinaNet', RESIZES[resize])
    session = front_session(read_preprocessing(model.config, model.module.data_preprocessor))
    for image in generated_images(((128, 160), (97, 203), (640, 301), (33, 47))):
        prepared, content, size = session.run(None, {'image': image})
        batch = pseudo_collate([model._prepare(Frame(image, 'image', 'image'))])
        batch = model.module.data_preprocessor(batch)
        sample = batch['data_samples'][0]
        assert prepared.shape == batch['inputs'].shape
        assert (*content,) == sample.img_shape
        assert (*size,) == sample.ori_shape == image.shape[:2]
        # OpenCV rounds to fixed-point numbers.
        step = 0 if resize == 'none' else 1 / 60
        np.testing.assert_allclose(prepared, batch['inputs'], atol=step + 1e-5, rtol=0)


@pytest.mark.parametrize(
    ('test_cfg', 'divisor'), [(None, 1), (dict(size_divisor=48), 48)], ids=['none', 'test_cfg']
)
def test_segmentors_are_padded_as_in_tests(segmentor: Build, test_cfg: Any, divisor: int) -> None:
    """Padding in training is ignored; OneDL's preprocessor stores it in ``pad_size_divisor``."""
    model = segmentor()
    preprocessor = SegDataPreProcessor(size_divisor=32, test_cfg=test_cfg)
    preprocessor.pad_size_divisor = 32
    assert read_preprocessing(model.config, preprocessor).divisor == divisor


SMALL = ((5, 7), (20, 200), (64, 31), (40, 50))


@pytest.mark.parametrize('test_cfg', [{}, dict(size_divisor=48)], ids=['none', 'test_cfg'])
def test_small_images_are_padded_as_in_predictions(segmentor: Build, test_cfg: Any) -> None:
    model = segmentor(**{'model.data_preprocessor.test_cfg': test_cfg})
    check_small_images(model)


@pytest.mark.parametrize('divisor', [1, 32, 48])
def test_small_images_of_a_detector(detector: Build, divisor: int) -> None:
    resize = [dict(type='Resize', scale=(200, 128), keep_ratio=True)]
    model = detector('RetinaNet', resize, **{'model.data_preprocessor.pad_size_divisor': divisor})
    check_small_images(model)


def check_small_images(model: Model) -> None:
    model.module.backbone = MODELS.build(dict(type='NAT', **TINY))
    settings = read_preprocessing(
        model.config, model.module.data_preprocessor, smallest=smallest_input(model.module)
    )
    session = front_session(settings)
    for shape in SMALL:
        image = np.full((*shape, 3), 200, np.uint8)
        prepared, _, _ = session.run(None, {'image': image})
        batch = pseudo_collate([model._prepare(Frame(image, 'image', 'image'))])
        with small_images_padded(model.module, batch['inputs']):
            expected = model.module.data_preprocessor(batch)['inputs']
        assert prepared.shape == expected.shape
        np.testing.assert_allclose(prepared, expected, atol=1e-5, rtol=0)


OPERATORS = {
    'highest': (highest, (torch.rand(5), 3)),
    'suppress': (suppress, (torch.rand(5, 4), torch.rand(5), 0.5, 0.1, 3)),
    'centers': (centers, (torch.tensor(4),)),
    'crop': (crop, (torch.rand(1, 2, 5, 6), torch.tensor([3, 4]))),
    'resize': (resize, (torch.rand(1, 2, 5, 6), torch.tensor([3, 4]), False)),
}


@pytest.mark.parametrize('name', OPERATORS)
def test_operators_are_registered_as_pytorch_wants(name: str) -> None:
    operator, arguments = OPERATORS[name]
    torch.library.opcheck(operator, arguments, test_utils=('test_schema', 'test_faketensor'))
