"""Compares the results of a runtime with PyTorch's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from nat_mm.config.objects import type_name
from nat_mm.export.preprocessing import reverses_channels
from nat_mm.inference.inputs import Frame
from nat_mm.inference.model import Model

CHECKED_SIZES = ((128, 160), (97, 203), (256, 192))
"""Height and width of the generated test images: odd sizes, portrait and landscape."""

AGREEMENT = 0.99
"""Fraction of objects or pixels that must match; where scores tie, either may be kept."""

AGREEMENT_AFTER_RESIZING = 0.9
"""The same if the file resizes; OpenCV rounds in fixed point, so values differ by 1 of 255."""

SCORE_TOLERANCE = 0.01

BOX_OVERLAP = 0.9
"""Least intersection over union of boxes or masks that match."""

Runtime = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Maps the input ``image`` to the outputs by name."""


def onnxruntime_runtime(path: Path, *, threads: int = 0) -> Runtime:
    """Creates a runtime for an ONNX file, on the CPU.

    Args:
        path: The file.
        threads: Number of threads; 0 lets the runtime decide.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    names = [each.name for each in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(None, {'image': image}), strict=True))


def openvino_runtime(path: Path, *, threads: int = 0) -> Runtime:
    """Like `onnxruntime_runtime`, but with OpenVINO, in float32."""
    import openvino

    options = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads}
    model = openvino.Core().compile_model(str(path), 'CPU', options)
    names = [each.get_any_name() for each in model.outputs]
    return lambda image: dict(zip(names, model([image]).values(), strict=True))


def generated_images(
    sizes: Sequence[tuple[int, int]] = CHECKED_SIZES,
) -> Iterator[np.ndarray]:
    """Yields images of colored shapes on a background, [height, width, 3], uint8.

    Args:
        sizes: Height and width of each image.
    """
    rng = np.random.default_rng(0)
    for height, width in sizes:
        ground = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(8):
            center = (int(rng.integers(width)), int(rng.integers(height)))
            color = [int(value) for value in rng.integers(0, 256, 3)]
            extent = int(rng.integers(8, 40))
            if rng.random() < 0.5:
                cv2.circle(image, center, extent, color, -1, cv2.LINE_AA)
            else:
                corner = (center[0] + extent, center[1] + int(rng.integers(8, 40)))
                cv2.rectangle(image, center, corner, color, -1)
        yield image


def compare(model: Model, runtime: Runtime, image: np.ndarray, *, preprocess: bool) -> list[float]:
    """Compares the predictions of a runtime for an image with PyTorch's.

    Args:
        model: The model.
        runtime: Runs the exported model.
        image: [height, width, 3], uint8, BGR.
        preprocess: Whether the preprocessing was exported as well; see
            `nat_mm.export.model.model_to_onnx`.

    Returns:
        For a segmentor, one number: the fraction of pixels with the same label. For a detector, a
        number for each object that either finds: 1 if the other finds it as well, otherwise 0.
    """
    if preprocess:
        (sample,) = model.infer([Frame(image, 'image', 'image')])
        found = runtime(image)
    else:
        prepared = prepare(model, image)
        sample = _predict(model, prepared)
        found = runtime(prepared.numpy())
    if model.task == 'segmentation':
        expected = sample.pred_sem_seg.data[0].numpy()
        return [float((found['labels'][0] == expected).mean())]
    expected = {
        'boxes': sample.pred_instances.bboxes.numpy(),
        'scores': sample.pred_instances.scores.numpy(),
        'labels': sample.pred_instances.labels.numpy(),
    }
    if 'masks' in found:
        expected['masks'] = sample.pred_instances.masks.numpy()
    return [*_matches(expected, found), *_matches(found, expected)]


def prepare(model: Model, image: np.ndarray) -> torch.Tensor:
    """Normalizes an image [height, width, 3] to [1, 3, height, width], keeping its size."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    preprocessor: Any = model.module.data_preprocessor
    if reverses_channels(preprocessor):
        planes = planes.flip(0)
    planes = planes.float()
    if preprocessor._enable_normalize:
        planes = (planes - preprocessor.mean) / preprocessor.std
    return planes[None]


def _predict(model: Model, image: torch.Tensor) -> Any:
    size = tuple(image.shape[2:])
    meta = {
        'ori_shape': size,
        'img_shape': size,
        'pad_shape': size,
        'batch_input_shape': size,
        'scale_factor': (1.0, 1.0),
    }
    if model.task == 'segmentation':
        from mmseg.structures import SegDataSample as Sample
    else:
        from mmdet.structures import DetDataSample as Sample
    with torch.no_grad():
        (sample,) = model.module.predict(image, [Sample(metainfo=meta)])
    return sample


def _matches(objects: Mapping[str, Any], others: Mapping[str, Any]) -> list[float]:
    """Returns for each object whether one of the others matches it, 1 or 0."""
    matches = []
    for index, (box, score, label) in enumerate(
        zip(objects['boxes'], objects['scores'], objects['labels'], strict=True)
    ):
        alike = (
            (others['labels'] == label)
            & (np.abs(others['scores'] - score) <= SCORE_TOLERANCE)
            & (_overlaps(box, others['boxes']) >= BOX_OVERLAP)
        )
        if 'masks' in objects and alike.any():
            mask, masks = objects['masks'][index], others['masks'][alike]
            union = (mask | masks).sum(axis=(1, 2))
            alike = (mask & masks).sum(axis=(1, 2)) >= BOX_OVERLAP * union
        matches.append(float(alike.any()))
    return matches


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of a box [4] with others [n, 4], as [n]."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    # Empty boxes match if they are equal.
    return (shared + 1e-6) / (areas - shared + 1e-6)


def least_agreement(model: Model, *, preprocess: bool) -> float:
    """Returns the least `agreement` to keep an exported model; see `compare` for the arguments."""
    names = map(type_name, model.loader.others) if preprocess else ()
    return AGREEMENT_AFTER_RESIZING if any('Resize' in each for each in names) else AGREEMENT


def agreement(numbers: Sequence[float]) -> float:
    """Returns the mean of `compare`'s results for all images; 1 if nothing was found."""
    return sum(numbers) / len(numbers) if numbers else 1.0
