"""Tests that mmseg draws on images of any memory layout."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer


@pytest.mark.parametrize('transposed', [False, True], ids=['contiguous', 'channels-slowest'])
def test_ground_truth_is_drawn(tmp_path, transposed):
    visualizer = SegLocalVisualizer(alpha=1.0)
    visualizer.dataset_meta = {'classes': ['ground', 'thing'], 'palette': [[0, 0, 0], [9, 99, 199]]}
    image = np.zeros((3, 40, 60), np.uint8).transpose(1, 2, 0)
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.ones(1, 40, 60, dtype=torch.long)))
    if not transposed:
        image = np.ascontiguousarray(image)
    visualizer.add_datasample('x', image, sample, draw_pred=False, with_labels=True)
    drawn = visualizer.get_image()
    assert (drawn[-1, 0] == [9, 99, 199]).all()
