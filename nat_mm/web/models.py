"""Wraps the models of the page: predicts images, and draws and writes the results."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nat_mm.files import write_image
from nat_mm.inference.drawing import OPACITY, enlarge_sample
from nat_mm.inference.inputs import Frame
from nat_mm.inference.model import Model
from nat_mm.inference.result_files import ResultFiles
from nat_mm.web.findings import PackedFinding, pack_finding
from nat_mm.web.legend import Entry, list_entries, write_classes

LOWEST_SCORE = 0.05
"""Objects with lower scores are not kept, so that they cannot be shown at any threshold."""


@dataclass(frozen=True)
class Drawing:
    """What the page shows of a result.

    Attributes:
        files: All files for download, by the name of the download, starting with the image with
            the result drawn over it.
        entries: The legend.
    """

    files: dict[str, Path]
    entries: list[Entry]


class PageModel:
    """A model that the page offers.

    Models must be used from one thread at a time, because OpenMMLab's scope and matplotlib are
    global.

    Args:
        name: Its name on the page.
        model: The model itself.
        opacity: Opacity of masks, segments and label maps, from 0 to 1.
    """

    def __init__(self, name: str, model: Model, *, opacity: float = OPACITY) -> None:
        self.name = name
        self.model = model
        self.has_threshold = model.task == 'detection'
        self.opacity = opacity

    def describe(self) -> str:
        """Describes the model and its classes as HTML."""
        kind = f'{type(self.model.module).__name__} of {self.model.scope}'
        palette = None if self.model.task == 'classification' else self.model.palette
        return write_classes(kind, self.model.classes, palette)

    def find(self, frame: Frame) -> PackedFinding:
        """Runs the model.

        Args:
            frame: An image.

        Returns:
            The packed result.
        """
        started = time.perf_counter()
        with self.model.low_scores_kept(LOWEST_SCORE):
            (sample,) = self.model.infer([frame])
        seconds = time.perf_counter() - started
        return pack_finding(
            self.name, self._without_copy(frame), sample, seconds=seconds, lowest_score=LOWEST_SCORE
        )

    def _without_copy(self, frame: Frame) -> Frame:
        """Drops the loaded array of an image if it can be restored from the image to draw on."""
        if frame.results is None:
            return frame
        made = self.model.loader.load_array(frame.image).results['img']
        same = np.array_equal(frame.results['img'], made)
        return replace(frame, results=None) if same else frame

    def draw(self, finding: PackedFinding, *, threshold: float, folder: Path) -> Drawing:
        """Draws a result and writes it as data, without running the model.

        Args:
            finding: Return value of `find`.
            threshold: Lowest score of the objects that are drawn and written.
            folder: Folder for the files.

        Returns:
            The files and the legend.
        """
        result = self.model.result(finding.frame(), finding.sample(), score_threshold=threshold)
        enlarged = self.model.result(
            replace(result.frame, image=finding.enlarged_image()),
            enlarge_sample(result.sample, finding.enlargement),
            score_threshold=threshold,
        )
        image = folder / 'image_found.png'
        # The regions of a label map are named only in the legend.
        drawn = enlarged.draw(opacity=self.opacity, with_labels=self.model.task != 'segmentation')
        write_image(image, drawn[..., ::-1])
        data = ResultFiles(self.model, folder)
        data.write(result)
        data.close()
        stem = Path(finding.file_name).stem
        files = {f'{stem}_found.png': image}
        for path in data.paths(result.frame.name):
            files[f'{stem}{path.suffix}'] = path
        files['classes.json'] = folder / 'classes.json'
        entries = list_entries(
            result.sample,
            classes=self.model.classes,
            palette=self.model.palette,
            threshold=threshold,
        )
        return Drawing({name: path for name, path in files.items() if path.exists()}, entries)
