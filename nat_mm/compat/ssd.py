"""SSD's predictions need the loss of its head, which has none."""

from types import ModuleType

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = 'https://github.com/open-mmlab/mmdetection/issues/11063'
MODULES = ('mmdet.models.dense_heads.ssd_head',)


def repair(module: ModuleType) -> None:
    """Says that the head has no loss of its own.

    Args:
        module: ``mmdet.models.dense_heads.ssd_head``.
    """
    module.SSDHead.loss_cls = None
