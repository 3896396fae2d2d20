"""The models of the page: what they find in an image, drawn and as files."""

import time
import warnings
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from nat_mm.files import write_image
from nat_mm.inference.coco_results import CocoResults
from nat_mm.inference.inputs import Frame
from nat_mm.inference.predictor import DetectionPredictor, Predictor, SegmentationPredictor
from nat_mm.web.findings import Finding, pack_finding
from nat_mm.web.legend import Entry, list_entries

LOWEST_SCORE = 0.05
"""Objects below it are not kept, so that no threshold shows them."""


@dataclass(frozen=True)
class Drawing:
    """What the page shows of a finding.

    Attributes:
        files: All files for download by the names that they get there; the image with what was
            found is the first.
        entries: The legend.
    """

    files: dict[str, Path]
    entries: list[Entry]


class PageModel:
    """A model that the page offers.

    Two threads must not use models at once: OpenMMLab's scope and matplotlib are global.

    Args:
        name: What the page calls it.
        predictor: The model itself.
    """

    def __init__(self, name: str, predictor: Predictor) -> None:
        self.name = name
        self.predictor = predictor
        inferencer = predictor.inferencer
        # mmpretrain's has another name for it.
        self.config = inferencer.cfg if hasattr(inferencer, 'cfg') else inferencer.config
        self.scope = self.config.default_scope
        self.has_threshold = isinstance(predictor, DetectionPredictor)
        visualizer = inferencer.visualizer
        if hasattr(visualizer, 'alpha'):
            # Leaves more of the image to be seen than by default.
            visualizer.alpha = 0.6

    def find(self, frame: Frame) -> Finding:
        """Runs the model.

        Args:
            frame: An image.

        Returns:
            What it found.
        """
        started = time.perf_counter()
        with DefaultScope.overwrite_default_scope(self.scope):
            (sample,) = self.predictor.infer([frame.image])
        seconds = time.perf_counter() - started
        return pack_finding(self.name, frame, sample, seconds=seconds, lowest_score=LOWEST_SCORE)

    def draw(self, finding: Finding, *, threshold: float, folder: Path) -> Drawing:
        """Draws a finding and writes it as data, without running the model.

        Args:
            finding: What `find` returned.
            threshold: Lowest score of the objects that are drawn and written.
            folder: A folder for the files.

        Returns:
            The files and the legend.
        """
        predictor = self._predictor_for(folder, threshold)
        frame, sample = finding.frame(), finding.sample()
        with DefaultScope.overwrite_default_scope(self.scope):
            drawn = _draw(
                predictor,
                finding.enlarged_image()[..., ::-1],
                _enlarge(sample, finding.enlargement),
            )
            predictor.write_result(frame, sample)
        predictor.close()
        image = folder / 'image_found.png'
        write_image(image, drawn[..., ::-1])
        stem = Path(finding.file_name).stem
        files = {f'{stem}_found.png': image}
        for path in predictor.result_paths(frame.name):
            files[f'{stem}{path.suffix}'] = path
        files['classes.json'] = folder / 'classes.json'
        entries = list_entries(
            sample,
            classes=predictor.classes,
            palette=self._palette(),
            threshold=threshold,
        )
        return Drawing({name: path for name, path in files.items() if path.exists()}, entries)

    def _predictor_for(self, folder: Path, threshold: float) -> Predictor:
        """The same model, writing to another folder."""
        predictor = copy(self.predictor)
        predictor.out_dir = folder
        if isinstance(predictor, DetectionPredictor):
            predictor.score_threshold = threshold
            predictor.coco = CocoResults(folder / 'coco', predictor.classes)
        return predictor

    def _palette(self) -> list[tuple[int, int, int]]:
        """The colors in which the visualizer draws the classes."""
        from mmdet.visualization import get_palette

        meta = self.predictor.inferencer.model.dataset_meta
        return get_palette(meta.get('palette'), len(self.predictor.classes))


def _draw(predictor: Predictor, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
    if not isinstance(predictor, SegmentationPredictor):
        with warnings.catch_warnings():
            # A box that touches the image's border counts as out of bounds.
            warnings.filterwarnings('ignore', message='.*out of bounds')
            return predictor.draw(image, sample)
    # Without the names, which the legend has: mmseg takes seconds to find places for them.
    visualizer = predictor.inferencer.visualizer
    visualizer.set_dataset_meta(**predictor.inferencer.model.dataset_meta)
    visualizer.add_datasample('image', image, sample, draw_gt=False, with_labels=False)
    return visualizer.get_image()


def _enlarge(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """A copy of a sample for an image whose sides are so many times as long."""

    def repeat(maps: Tensor) -> Tensor:
        return maps.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)

    sample = sample.clone()
    if 'pred_instances' in sample:
        instances = sample.pred_instances.clone()
        instances.bboxes = instances.bboxes * factor
        if 'masks' in instances:
            instances.masks = repeat(instances.masks)
        sample.pred_instances = instances
    if 'pred_sem_seg' in sample:
        sample.pred_sem_seg = PixelData(data=repeat(sample.pred_sem_seg.data))
    if 'pred_panoptic_seg' in sample:
        sample.pred_panoptic_seg = PixelData(sem_seg=repeat(sample.pred_panoptic_seg.sem_seg))
    return sample
