"""Tests that panoptic predictions are drawn, even one without segments."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import PixelData

VOID = 2
CLASSES = {'classes': ['thing', 'stuff'], 'palette': [(250, 0, 0), (0, 250, 0)]}


@pytest.mark.parametrize(('label', 'changed'), [(VOID, False), (1, True)], ids=['void', 'stuff'])
def test_drawing(label, changed):
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = CLASSES
    image = np.full((40, 60, 3), 100, np.uint8)
    segments = torch.full((1, 40, 60), label, dtype=torch.int32)
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=segments))
    visualizer.add_datasample('x', image, sample, draw_gt=False)
    drawn = visualizer.get_image()
    assert drawn.shape == image.shape
    assert (drawn != image).any() == changed
