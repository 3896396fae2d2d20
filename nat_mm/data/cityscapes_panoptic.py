"""Dataset of Cityscapes with panoptic segments, which mmdetection 3.3 lacks."""

from typing import Any

from mmdet.datasets import CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic
from mmdet.registry import DATASETS

THINGS = ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')
STUFF = (
    *('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign'),
    *('vegetation', 'terrain', 'sky'),
)
COLORS = [
    *[(220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100)],
    *[(0, 0, 230), (119, 11, 32), (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156)],
    *[(190, 153, 153), (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35)],
    *[(152, 251, 152), (70, 130, 180)],
]


class ThingsFirst(COCOPanoptic):
    """Annotations whose categories are in the order that mmdetection's heads expect."""

    def createIndex(self) -> None:  # noqa: N802
        self.dataset['categories'].sort(key=lambda category: not category['isthing'])
        super().createIndex()


@DATASETS.register_module()
class CityscapesPanopticDataset(CocoPanopticDataset):
    """Cityscapes as prepared by ``createPanopticImgs`` of its scripts, with 19 classes.

    ``ann_file`` is the ``cityscapes_panoptic_{train,val}.json`` that the script writes;
    ``data_prefix`` has the folder ``leftImg8bit/{train,val}`` as ``img`` and that of the segments'
    PNGs as ``seg``.
    """

    METAINFO = {
        'classes': THINGS + STUFF,
        'thing_classes': THINGS,
        'stuff_classes': STUFF,
        'palette': COLORS,
    }
    COCOAPI = ThingsFirst

    def parse_data_info(self, raw_data_info: dict[str, Any]) -> dict[str, Any]:
        """Sets the paths of an image, in the folder of its city, and of its segments' PNG.

        Their names differ, and the annotations give a third name, which no file has.
        """
        image = raw_data_info['raw_img_info']
        name = image['img_id']
        image['file_name'] = f'{name.partition("_")[0]}/{name}_leftImg8bit.png'
        data_info = super().parse_data_info(raw_data_info)
        data_info['seg_map_path'] = (
            f'{self.data_prefix["seg"].rstrip("/")}/{name}_gtFine_panoptic.png'
        )
        return data_info
