"""Tests that a config with infinite numbers can be written and read again."""

import math

from mmengine.config import Config


def test_written_config_is_read(tmp_path):
    settings = {
        'val_interval': math.inf,
        'ranges': [(-math.inf, 64), (64, math.inf)],
        'weights': {'inf': math.nan, 'name': 'inf, nan', 3: math.inf},
        'inf': 1.5,
    }
    path = tmp_path / 'config.py'
    Config(settings).dump(path)
    config = Config.fromfile(path)
    assert math.isnan(config.weights.pop('inf'))
    del settings['weights']['inf']
    assert config.to_dict() == settings
