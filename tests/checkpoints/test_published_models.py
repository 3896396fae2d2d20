"""Tests detectors and segmentors that the authors trained with mmdet 2.19 and mmseg 0.20.

``published_keys.txt`` lists the keys outside ``backbone.``, with their shapes, that these versions
give the authors' Mask R-CNN, Cascade Mask R-CNN and UPerNet on a NAT-Mini.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from nat_mm.checkpoints import convert_weights

ROOT = Path(__file__).parents[2]
FAMILIES = {'nat': 'nat_mini', 'dinat': 'dinat_mini', 'dinat_s': 'dinat_s_tiny'}
METHODS = {
    'mask_rcnn': 'detection/{folder}/mask_rcnn_{name}_3x_coco.py',
    'cascade_mask_rcnn': 'detection/{folder}/cascade_mask_rcnn_{name}_3x_coco.py',
    'upernet': 'segmentation/{folder}/upernet_{name}_512x512_160k_ade20k.py',
}


@pytest.fixture(scope='module')
def published():
    """The shapes of each method by key."""
    methods = {}
    for line in (Path(__file__).parent / 'published_keys.txt').read_text().splitlines():
        key, _, shape = line.partition(' ')
        if key == '#':
            methods[shape] = keys = {}
        else:
            keys[key] = [] if shape == 'scalar' else [int(size) for size in shape.split('x')]
    return methods


@pytest.mark.parametrize('folder', FAMILIES)
@pytest.mark.parametrize('method', METHODS)
def test_keys_of_the_matching_config(published, method, folder):
    name = METHODS[method].format(folder=folder, name=FAMILIES[folder])
    config = Config.fromfile(ROOT / 'configs' / name)
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        state_dict = MODELS.build(config.model).state_dict()
    converted = convert_weights(state_dict, to='model')
    assert converted.keys() == state_dict.keys()
    shapes = {
        key: list(tensor.shape)
        for key, tensor in state_dict.items()
        if not key.startswith('backbone.')
    }
    if folder == 'dinat_s':
        # The channels differ: 96 instead of 64 in the first stage.
        assert shapes.keys() == published[method].keys()
    else:
        assert shapes == published[method]
