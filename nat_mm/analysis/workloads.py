"""Defines what published FLOPs count in detectors, segmentors and classifiers, at which input."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from nat_mm.config.datasets import find_test_dataset
from nat_mm.config.objects import type_name
from nat_mm.errors import UserError

PROPOSALS = 1000
"""Number of regions that go through each box head of a detector."""

MASKS = 100
"""Number of regions that go through each mask head, as in ``forward`` of mmdet's standard heads."""


@dataclass(frozen=True)
class Workload:
    """One kind of model.

    Attributes:
        run: Runs a model on an image [1, C, H, W] and returns its output.
        find_shape: Finds height and width of the image in the config; None if it has none.
        convention: What is counted, for the report.
    """

    run: Callable[[nn.Module, Tensor], Any]
    find_shape: Callable[[Config], tuple[int, int] | None]
    convention: str


def find_workload(model: nn.Module, config: Config) -> Workload:
    """Finds the workload of a model.

    Args:
        model: Model built from the config.
        config: Config of mmdet, mmseg or mmpretrain.

    Raises:
        UserError: The model is not a detector, segmentor or classifier.
    """
    base, workload = _FINDERS[config.default_scope](model)
    if not isinstance(model, base):
        raise UserError(
            f'{config.filename}: the model must be a {base.__name__} of {config.default_scope}, '
            f'got {type_name(config.model)}'
        )
    return workload


def _find_detection(model: nn.Module) -> tuple[type[nn.Module], Workload]:
    from mmdet.models import BaseDetector

    if _has_region_heads(model):
        convention = f'{PROPOSALS} regions in each box head, {MASKS} in each mask head'
        workload = Workload(_run_two_stage_detector, lambda config: (800, 1280), convention)
    else:
        workload = Workload(_run_detector, lambda config: (800, 1280), '')
    return BaseDetector, workload


def _find_segmentation(model: nn.Module) -> tuple[type[nn.Module], Workload]:
    from mmseg.models import BaseSegmentor

    has_auxiliary_head = getattr(model, 'with_auxiliary_head', False)
    convention = 'the auxiliary head computes nothing' if has_auxiliary_head else ''
    return BaseSegmentor, Workload(_run_segmentor, _find_segmentor_shape, convention)


def _find_classification(model: nn.Module) -> tuple[type[nn.Module], Workload]:
    from mmpretrain.models import BaseClassifier

    return BaseClassifier, Workload(_run_classifier, _find_classifier_shape, '')


_FINDERS = {
    'mmdet': _find_detection,
    'mmseg': _find_segmentation,
    'mmpretrain': _find_classification,
}


def _has_region_heads(model: nn.Module) -> bool:
    """Whether a detector runs standard or cascade heads on the proposals of a dense head."""
    from mmdet.models import CascadeRoIHead, StandardRoIHead, TwoStageDetector
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    if not isinstance(model, TwoStageDetector) or not model.with_roi_head:
        return False
    roi_head = model.roi_head
    usual = isinstance(roi_head, StandardRoIHead) or (
        type(roi_head).forward is CascadeRoIHead.forward
    )
    return usual and model.with_rpn and isinstance(model.rpn_head, BaseDenseHead)


def _run_two_stage_detector(model: nn.Module, image: Tensor) -> list[Any]:
    from mmdet.models import SingleRoIExtractor, StandardRoIHead

    roi_head = model.roi_head
    for module in roi_head.modules():
        if isinstance(module, SingleRoIExtractor):
            # The level a region is taken from depends on values; the features' shape does not.
            module.forward = MethodType(_extract_from_first_level, module)

    features = model.extract_feat(image)
    outputs = [model.rpn_head(features)]
    if getattr(model, 'with_semantic_head', False):
        outputs.append(model.semantic_head(features))
    # The number of real proposals depends on values, so placeholders take their place.
    if isinstance(roi_head, StandardRoIHead):
        proposals = [InstanceData(bboxes=image.new_zeros(PROPOSALS, 4))]
        return [*outputs, roi_head.forward(features, proposals, [_sample(image)])]
    # The forward method of mmdet 3.3 sends the regions of all stages through every mask head.
    regions = image.new_zeros(PROPOSALS, 5)
    for stage in range(roi_head.num_stages):
        outputs.append(roi_head._bbox_forward(stage, features, regions))
        if roi_head.with_mask:
            outputs.append(roi_head._mask_forward(stage, features, regions[:MASKS]))
    return outputs


def _extract_from_first_level(extractor, features, regions, **options) -> Tensor:
    return type(extractor).forward(extractor, features[:1], regions, **options)


def _run_detector(model: nn.Module, image: Tensor) -> Any:
    return model(image, [_sample(image)], mode='tensor')


def _run_segmentor(model: nn.Module, image: Tensor) -> Any:
    return model.encode_decode(image, [_metainfo(image)])


def _run_classifier(model: nn.Module, image: Tensor) -> Any:
    return model(image, mode='tensor')


def _sample(image: Tensor) -> BaseDataElement:
    from mmdet.structures import DetDataSample

    # Some detectors access the ground-truth objects even where they do not use them.
    objects = InstanceData(bboxes=image.new_zeros(0, 4), labels=image.new_zeros(0))
    return DetDataSample(metainfo=_metainfo(image), gt_instances=objects)


def _metainfo(image: Tensor) -> dict[str, Any]:
    shape = tuple(image.shape[-2:])
    sizes = dict.fromkeys(('img_shape', 'pad_shape', 'batch_input_shape', 'ori_shape'), shape)
    return {**sizes, 'img_id': 0, 'scale_factor': (1.0, 1.0), 'flip': False}


def _find_segmentor_shape(config: Config) -> tuple[int, int] | None:
    scale = _find_in_test_pipeline(config, 'Resize', 'scale')
    # OpenMMLab's scales are a longest and a shortest side; images are assumed to be landscape.
    return None if scale is None else (min(scale), max(scale))


def _find_classifier_shape(config: Config) -> tuple[int, int] | None:
    size = _find_in_test_pipeline(config, 'CenterCrop', 'crop_size')
    if size is None:
        size = _find_in_test_pipeline(config, 'Resize', 'scale')
    if isinstance(size, int):
        return size, size
    return None if size is None else (size[1], size[0])


def _find_in_test_pipeline(config: Config, transform: str, key: str) -> Any:
    for step in find_test_dataset(config).get('pipeline', []):
        if type_name(step) == transform:
            return step.get(key)
    return None
