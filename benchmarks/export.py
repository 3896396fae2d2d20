"""Compares scores and times of a model in PyTorch, onnxruntime and OpenVINO, optionally in int8.

The scores are those of the config's own evaluators on its test data. The times are for one thread,
from the image to the results, in CPU time, which other programs hardly affect.

    python -m benchmarks.export CONFIG CHECKPOINT EXPORTED.onnx [EXPORTED_INT8.onnx]

The files must be written by ``nat-mm export --preprocess``.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from nat_mm.config.reading import load_config
from nat_mm.export.verification import Runtime, onnxruntime_runtime, openvino_runtime
from nat_mm.inference.inputs import Frame
from nat_mm.inference.load_model import load_model
from nat_mm.inference.model import Model

METRICS = {
    'mmdet': {'box AP': 'coco/bbox_mAP', 'mask AP': 'coco/segm_mAP'},
    'mmseg': {'mIoU': 'mIoU'},
}
PERCENT = {'mmdet': 100, 'mmseg': 1}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('exported', type=Path)
    parser.add_argument('int8', type=Path, nargs='?')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(arguments.config)
    model = load_model(config, arguments.checkpoint, device='cpu')
    rows: dict[str, Callable[[np.ndarray], Any]] = {
        'PyTorch': pytorch(model),
        'onnxruntime': onnxruntime_runtime(arguments.exported, threads=1),
        'OpenVINO': openvino_runtime(arguments.exported, threads=1),
    }
    if arguments.int8:
        rows['onnxruntime, int8'] = onnxruntime_runtime(arguments.int8, threads=1)
        rows['OpenVINO, int8'] = openvino_runtime(arguments.int8, threads=1)
    names = METRICS[config.default_scope]
    print(f'| | {" | ".join(names)} | ms |')
    print('| --- ' * (len(names) + 2) + '|')
    for name, runtime in rows.items():
        scores, milliseconds = evaluate(config, runtime)
        values = (PERCENT[config.default_scope] * scores[each] for each in names.values())
        shown = ' | '.join(f'{value:.2f}' for value in values)
        print(f'| {name} | {shown} | {milliseconds:.1f} |', flush=True)


def pytorch(model: Model) -> Runtime:
    """Returns a function that predicts like a runtime, with the same output names."""

    def run(image: np.ndarray) -> Mapping[str, np.ndarray]:
        (sample,) = model.infer([Frame(image, 'image', 'image')])
        if model.task == 'segmentation':
            return {'labels': sample.pred_sem_seg.data.numpy()}
        found = sample.pred_instances
        names = {'boxes': 'bboxes', 'scores': 'scores', 'labels': 'labels', 'masks': 'masks'}
        return {name: found[key].numpy() for name, key in names.items() if key in found}

    return run


def evaluate(config: Config, runtime: Runtime) -> tuple[dict[str, float], float]:
    """Evaluates a runtime on a config's test data: its scores, and milliseconds per image."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        evaluator = Evaluator(config.test_evaluator)
        evaluator.dataset_meta = dataset.metainfo
        times = []
        for index in range(len(dataset)):
            sample = dataset[index]['data_samples']
            image = cv2.imread(sample.img_path)
            start = time.process_time()
            found = runtime(image)
            times.append(time.process_time() - start)
            tensors = {name: torch.from_numpy(value) for name, value in found.items()}
            if config.default_scope == 'mmseg':
                sample.pred_sem_seg = PixelData(data=tensors['labels'])
            else:
                tensors['bboxes'] = tensors.pop('boxes')
                sample.pred_instances = InstanceData(**tensors)
            evaluator.process([sample])
        return evaluator.evaluate(len(dataset)), 1000 * statistics.median(times)


if __name__ == '__main__':
    main()
