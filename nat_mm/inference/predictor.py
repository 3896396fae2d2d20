"""Predicts pictures with a trained detector or segmentor and writes the results."""

import colorsys
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.structures import BaseDataElement

from nat_mm.files import write_image, write_json
from nat_mm.inference.coco_results import CocoResults
from nat_mm.inference.config import config_mistakes
from nat_mm.inference.inputs import Frame

GOLDEN_RATIO = 0.618034


class Predictor(ABC):
    """A model with what turns a picture into its input and its output into files.

    Args:
        config: Config of the model.
        checkpoint: Path or URL of its checkpoint.
        device: Device on which it runs.
        out_dir: Folder of the results; what is predicted goes into its folder ``results``.
        dataset_meta: Classes and palette, if the checkpoint does not say them.
    """

    result_suffixes: tuple[str, ...]
    """Of the files in ``results``; the first one is always written."""

    def __init__(
        self,
        config: Config,
        checkpoint: str,
        *,
        device: str,
        out_dir: Path,
        dataset_meta: dict[str, Any] | None = None,
    ) -> None:
        # mmengine prints all keys that do not fit; `check_checkpoint_fits` says it in one line.
        with config_mistakes(config), redirect_stdout(io.StringIO()):
            self.inferencer = self.make_inferencer(config, checkpoint, device)
        self.inferencer.show_progress = False
        meta = self.inferencer.model.dataset_meta
        meta.update(dataset_meta or {})
        self.classes = list(meta['classes'])
        if len(meta.get('palette') or ()) < len(self.classes):
            meta['palette'] = make_palette(len(self.classes))
        self.out_dir = out_dir

    @abstractmethod
    def make_inferencer(self, config: Config, checkpoint: str, device: str) -> BaseInferencer:
        """Builds OpenMMLab's own inferencer, which loads the model and its test pipeline."""

    @abstractmethod
    def write_result(self, frame: Frame, sample: BaseDataElement) -> None:
        """Writes what was predicted for an image as data."""

    @abstractmethod
    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """Draws what was predicted into a picture [height, width, 3], red-green-blue."""

    def infer(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        """Predicts a batch of images.

        Args:
            images: Each [height, width, 3], uint8, blue-green-red; all of one shape.

        Returns:
            What was predicted for each, as the toolbox describes it.
        """
        inferencer = self.inferencer
        return inferencer.forward(inferencer.collate_fn([inferencer.pipeline(i) for i in images]))

    def result_paths(self, name: str) -> list[Path]:
        """Where the data of an image go, by its `Frame.name`."""
        return [self.out_dir / 'results' / f'{name}{suffix}' for suffix in self.result_suffixes]

    def close(self) -> None:  # noqa: B027 - most have none
        """Finishes the files that hold the data of all images, if there are any."""


def make_palette(count: int) -> list[tuple[int, int, int]]:
    """Colors, red-green-blue from 0 to 255, that differ as much as so many can."""
    hues = (index * GOLDEN_RATIO % 1 for index in range(count))
    return [
        tuple(round(255 * share) for share in colorsys.hsv_to_rgb(hue, 0.65, 0.95)) for hue in hues
    ]


class DetectionPredictor(Predictor):
    """Predicts objects.

    The data of a picture are a JSON file: ``image``, ``height``, ``width`` and ``instances``, each
    with ``label``, ``class_name``, ``score``, ``bbox`` (x1, y1, x2, y2 in pixels) and, if the model
    has masks, ``mask`` (COCO's run-length encoding). Of a panoptic model there are also a PNG as
    COCO has for panoptic segments, and in the JSON file ``segments``, each with its number in the
    PNG as ``id``, ``label``, ``class_name`` and ``area`` in pixels; pixels without one are 0. The
    objects of all pictures are in the folder ``coco``; see `CocoResults`.

    Args:
        config: Config of the model.
        checkpoint: Path or URL of its checkpoint.
        score_threshold: Lowest score of the objects that are drawn and written.
        **options: See `Predictor`.
    """

    result_suffixes = ('.json', '.png')

    def __init__(
        self, config: Config, checkpoint: str, *, score_threshold: float, **options: Any
    ) -> None:
        super().__init__(config, checkpoint, **options)
        self.score_threshold = score_threshold
        self.coco = CocoResults(self.out_dir / 'coco', self.classes)

    def make_inferencer(self, config: Config, checkpoint: str, device: str) -> BaseInferencer:
        from mmdet.apis import DetInferencer

        return DetInferencer(config, checkpoint, device=device, show_progress=False)

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        visualizer = self.inferencer.visualizer
        visualizer.add_datasample(
            'prediction', image, sample, draw_gt=False, pred_score_thr=self.score_threshold
        )
        return visualizer.get_image()

    def write_result(self, frame: Frame, sample: BaseDataElement) -> None:
        data_path, segments_path = self.result_paths(frame.name)
        height, width = sample.ori_shape
        result = {**frame.describe(), 'height': height, 'width': width}
        result['instances'] = self.describe_instances(sample) if 'pred_instances' in sample else []
        if 'pred_panoptic_seg' in sample:
            result['segments'] = self.write_segments(sample, segments_path)
        write_json(data_path, result)
        self.coco.add(result)

    def close(self) -> None:
        self.coco.close()

    def describe_instances(self, sample: BaseDataElement) -> list[dict]:
        """What the JSON file says of the objects."""
        from mmdet.structures.mask import encode_mask_results

        found = sample.pred_instances
        found = found[found.scores >= self.score_threshold].cpu()
        instances = [
            {
                'label': int(label),
                'class_name': self.classes[label],
                'score': float(score),
                'bbox': [float(value) for value in box],
            }
            for label, score, box in zip(found.labels, found.scores, found.bboxes, strict=True)
        ]
        if 'masks' in found:
            codes = encode_mask_results(found.masks.numpy())
            for instance, code in zip(instances, codes, strict=True):
                instance['mask'] = {'size': code['size'], 'counts': code['counts'].decode()}
        return instances

    def write_segments(self, sample: BaseDataElement, path: Path) -> list[dict]:
        """Writes panoptic segments as COCO's PNG and returns what they are."""
        from mmdet.evaluation import INSTANCE_OFFSET
        from panopticapi.utils import id2rgb

        numbers = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
        numbers = np.where(numbers == len(self.classes), 0, numbers)
        write_image(path, id2rgb(numbers)[..., ::-1])
        found, areas = np.unique(numbers[numbers != 0], return_counts=True)
        return [
            {
                'id': int(number),
                'label': int(number % INSTANCE_OFFSET),
                'class_name': self.classes[number % INSTANCE_OFFSET],
                'area': int(area),
            }
            for number, area in zip(found, areas, strict=True)
        ]


class SegmentationPredictor(Predictor):
    """Predicts a class for every pixel.

    The data of a picture are a PNG of the class numbers; ``classes.json`` lists their names.

    Args:
        config: Config of the model.
        checkpoint: Path or URL of its checkpoint.
        device: Device on which it runs.
        out_dir: Folder of the results.
    """

    result_suffixes = ('.png',)

    def make_inferencer(self, config: Config, checkpoint: str, device: str) -> BaseInferencer:
        from mmseg.apis import MMSegInferencer

        return MMSegInferencer(config, checkpoint, device=device)

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        visualizer = self.inferencer.visualizer
        visualizer.set_dataset_meta(**self.inferencer.model.dataset_meta)
        visualizer.add_datasample('prediction', image, sample, draw_gt=False)
        return visualizer.get_image()

    def write_result(self, frame: Frame, sample: BaseDataElement) -> None:
        (path,) = self.result_paths(frame.name)
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        write_image(path, labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16))
        write_json(self.out_dir / 'classes.json', self.classes)
