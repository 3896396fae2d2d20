"""Tests ``_base_ = 'nat_mm::...'`` in a source checkout, where no wheel provides the configs."""

import pytest
from mmengine.config import Config

import nat_mm  # noqa: F401


def write_config(folder, base):
    path = folder / 'mine.py'
    path.write_text(f'_base_ = {base!r}\n')
    return path


def find_scopes(value):
    if isinstance(value, dict):
        yield value.get('_scope_')
        value = value.values()
    if isinstance(value, list | tuple | type({}.values())):
        for part in value:
            yield from find_scopes(part)


@pytest.mark.parametrize(
    ('name', 'framework'),
    [
        ('detection/nat/mask_rcnn_nat_mini_3x_coco.py', 'mmdet'),
        ('segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py', 'mmseg'),
    ],
    ids=['detection', 'segmentation'],
)
def test_types_are_looked_up_in_the_framework(tmp_path, name, framework):
    config = Config.fromfile(write_config(tmp_path, f'nat_mm::{name}'))
    assert config.model.backbone.type == 'NAT'
    assert config.default_scope == framework
    assert set(find_scopes(config.to_dict())) == {None, framework}


def test_missing_config_is_named(tmp_path):
    path = write_config(tmp_path, 'nat_mm::detection/nat/no_such_config.py')
    with pytest.raises(FileNotFoundError, match=r'detection/nat/no_such_config\.py.*mine\.py'):
        Config.fromfile(path)
