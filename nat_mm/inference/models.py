"""Builds models to look into."""

import importlib.util
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from nat_mm.errors import UserError
from nat_mm.inference.checkpoint import check_checkpoint_fits, read_for_model
from nat_mm.inference.config import config_mistakes, load_config


def load_model(
    config_path: str,
    checkpoint: str | None,
    *,
    device: str,
    overrides: dict[str, Any] | None = None,
) -> tuple[nn.Module, Config]:
    """Builds a model of mmdet, mmseg or mmpretrain in eval mode.

    Args:
        config_path: Config file, or ``mmdet::`` or another installed toolbox with the path of one
            of its configs.
        checkpoint: Path or URL of the checkpoint; None leaves the weights random.
        device: Device on which the model is going to run.
        overrides: Values of ``--cfg-options``, keyed by dotted name.

    Returns:
        The model, whose ``dataset_meta`` is what the checkpoint says of its data, and its config.

    Raises:
        UserError: Config or checkpoint cannot be read, or they do not belong together.
    """
    loaded = None if checkpoint is None else read_for_model(checkpoint)
    config = load_config(_find_config(config_path), overrides=overrides)
    with config_mistakes(config):
        description = config.model.copy()
        # mmpretrain's configs have it beside the model.
        if 'data_preprocessor' in config:
            description.setdefault('data_preprocessor', config.data_preprocessor)
        model = MODELS.build(description)
    model.dataset_meta = {}
    if loaded is not None:
        check_checkpoint_fits(model, loaded, source=checkpoint)
        model.load_state_dict(loaded['state_dict'], strict=False)
        model.dataset_meta = loaded.get('meta', {}).get('dataset_meta') or {}
    return model.to(device).eval(), config


def _find_config(path: str) -> str:
    """Turns ``package::config`` into the file that an installed toolbox has of it."""
    package, separator, config = path.partition('::')
    if not separator:
        return path
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None:
        raise UserError(f'config {path}: there is no package {package!r} installed')
    return str(Path(found.origin).parent / '.mim' / 'configs' / config)
