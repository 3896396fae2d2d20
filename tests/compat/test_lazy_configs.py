"""Tests mmengine's pure Python configs that use modules of the standard library."""

import torch
from mmengine.config import Config


def read(folder, *lines):
    path = folder / 'config.py'
    path.write_text('\n'.join(lines))
    return Config.fromfile(path)


def test_paths_are_joined_in_a_config_of_its_own_bases(tmp_path):
    (tmp_path / 'base.py').write_text("import os.path as osp\nroot = osp.join('data', 'coco')\n")
    config = read(
        tmp_path,
        'from os import path',
        'import json',
        'import os',
        'from mmengine.config import read_base',
        'with read_base():',
        '    from .base import *',
        "images = path.join(root, 'train')",
        'annotations = os.path.join(root, json.loads(\'["a.json"]\')[0])',
    )
    assert config.images == 'data/coco/train'
    assert config.annotations == 'data/coco/a.json'


def test_an_import_of_the_standard_library_makes_no_lazy_config(tmp_path):
    config = read(tmp_path, 'import os.path as osp', "root = osp.join('data', 'coco')")
    assert config.root == 'data/coco'


def test_other_modules_stay_lazy(tmp_path):
    config = read(
        tmp_path, 'from torch.nn import Linear', 'layer = dict(type=Linear, in_features=2)'
    )
    assert 'torch.nn.Linear' in config.pretty_text
    assert config.layer.type is torch.nn.Linear
