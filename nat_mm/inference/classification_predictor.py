"""Predicts the classes of pictures and writes the results."""

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.infer import BaseInferencer
from mmengine.structures import BaseDataElement

from nat_mm.files import write_json
from nat_mm.inference.inputs import Frame
from nat_mm.inference.predictor import Predictor

SHOWN_CLASSES = 5


class ClassificationPredictor(Predictor):
    """Predicts the class of a picture.

    The data of a picture are a JSON file: ``image``, ``height``, ``width`` and ``classes``, the
    five likeliest ones, each with ``label``, ``class_name`` and ``score``.

    Args:
        config: Config of the model.
        checkpoint: Path or URL of its checkpoint.
        device: Device on which it runs.
        out_dir: Folder of the results.
    """

    result_suffixes = ('.json',)

    def make_inferencer(self, config: Config, checkpoint: str, device: str) -> BaseInferencer:
        from mmpretrain.apis import ImageClassificationInferencer
        from mmpretrain.visualization import UniversalVisualizer

        inferencer = ImageClassificationInferencer(config, checkpoint, device=device)
        # What the other inferencers have: a pipeline that takes an image, and names of classes.
        inferencer.pipeline = Compose([_as_loaded, inferencer.pipeline])
        inferencer.collate_fn = default_collate
        inferencer.visualizer = UniversalVisualizer()
        names = inferencer.classes or map(str, range(inferencer.model.head.num_classes))
        inferencer.model.dataset_meta = {'classes': names}
        return inferencer

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        visualizer = self.inferencer.visualizer
        visualizer.visualize_cls(image, sample, classes=self.classes, draw_gt=False)
        return visualizer.get_image()

    def write_result(self, frame: Frame, sample: BaseDataElement) -> None:
        (path,) = self.result_paths(frame.name)
        scores, labels = sample.pred_score.cpu().sort(descending=True)
        likeliest = zip(scores.tolist(), labels.tolist(), strict=True)
        classes = [
            {'label': label, 'class_name': self.classes[label], 'score': score}
            for score, label in list(likeliest)[:SHOWN_CLASSES]
        ]
        height, width = sample.ori_shape
        result = {**frame.describe(), 'height': height, 'width': width, 'classes': classes}
        write_json(path, result)


def _as_loaded(image: np.ndarray) -> dict:
    """What mmpretrain's pipelines get of an image [height, width, 3] after loading it."""
    return {'img': image, 'img_shape': image.shape[:2], 'ori_shape': image.shape[:2]}
