"""pycocotools cannot evaluate annotations without iscrowd or area, which are optional in COCO.

It also treats the annotation id 0 as "no annotation", so that this object counts as never detected,
and cannot evaluate annotations whose ids are text.
"""

from itertools import count
from types import ModuleType
from typing import Any

BROKEN_IN = {'mmdet': '<3.6', 'pycocotools': '<3'}
UPSTREAM = (
    'https://github.com/cocodataset/cocoapi/issues/374, '
    'https://github.com/cocodataset/cocoapi/issues/664'
)
MODULES = ('mmdet.datasets.api_wrappers.coco_api',)


def repair(module: ModuleType) -> None:
    """Makes mmdet's COCO and COCOPanoptic fill in missing fields when they read a file.

    Args:
        module: ``mmdet.datasets.api_wrappers.coco_api``.
    """
    original = module._COCO
    index_panoptic = module.COCOPanoptic.createIndex

    def create_index(self: Any) -> None:
        annotations = [each for each in _annotations(self) if isinstance(each, dict)]
        _fill_crowds(annotations)
        _renumber(annotations)
        original.createIndex(self)
        for each in annotations:
            if each.get('area') is None and 'bbox' in each:
                each['area'] = _measure(self, each)

    def create_panoptic_index(self: Any) -> None:
        segments = [part for each in _annotations(self) for part in each.get('segments_info', ())]
        _fill_crowds(segments)
        for each in segments:
            if each.get('area') is None and 'bbox' in each:
                each['area'] = each['bbox'][2] * each['bbox'][3]
        index_panoptic(self)

    create_index.__wrapped__ = original.createIndex
    create_panoptic_index.__wrapped__ = index_panoptic
    module.COCO.createIndex = create_index
    module.COCOPanoptic.createIndex = create_panoptic_index


def _annotations(coco: Any) -> list[dict]:
    return coco.dataset.get('annotations') or []


def _fill_crowds(annotations: list[dict]) -> None:
    for each in annotations:
        if each.get('iscrowd') is None:
            each['iscrowd'] = 0


def _renumber(annotations: list[dict]) -> None:
    """Gives each annotation a positive whole number as its id, unless it has one."""
    numbered = [each['id'] for each in annotations if _is_positive(each.get('id'))]
    unused = count(max(numbered, default=0) + 1)
    for each in annotations:
        if 'id' in each and not _is_positive(each['id']):
            each['id'] = next(unused)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _measure(coco: Any, annotation: dict) -> float:
    """Returns the area of the mask as computed by COCO, or of the box if there is no mask."""
    from pycocotools import mask

    if annotation.get('segmentation'):
        try:
            return float(mask.area(coco.annToRLE(annotation)))
        except Exception:
            # The polygons have too few numbers, or the image has no size: mmdet skips these.
            pass
    return annotation['bbox'][2] * annotation['bbox'][3]
