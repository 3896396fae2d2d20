"""Loads models of mmdet, mmseg and mmpretrain from configs and checkpoints."""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

from nat_mm.checkpoints import mirrors_first, read_classes
from nat_mm.config.datasets import find_test_dataset
from nat_mm.config.objects import find_class
from nat_mm.config.reading import apply_overrides, config_mistakes, load_config
from nat_mm.config.zoo import published_weights
from nat_mm.errors import UserError, brief, shorten
from nat_mm.inference.checkpoint import check_checkpoint_fits, read_for_model
from nat_mm.inference.model import Model
from nat_mm.inference.palettes import complete_palette

RANDOM_WEIGHTS = 'none'
"""Passed instead of a checkpoint to leave the weights random."""


def load_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = None,
    *,
    device: str | None = None,
    overrides: dict[str, Any] | None = None,
    mirror: bool = False,
) -> Model:
    """Loads a detector, segmentor or classifier, ready to predict.

    Args:
        config: Config file; ``package::path`` for a config of an installed package; the name of a
            model in the model zoo, such as ``mask_rcnn_nat_tiny_3x_coco``; or a config from
            `nat_mm.config.reading.load_config`.
        checkpoint: Path or URL of the checkpoint, or ``hf://owner/name[@revision][/file]`` on the
            Hugging Face Hub; ``'none'`` for random weights. Default: the published weights of the
            config.
        device: Such as ``cpu`` or ``cuda:0``; default: a GPU if there is one.
        overrides: Config values to override, by dotted name.
        mirror: Whether to download published weights from the authors' repository on the Hugging
            Face Hub, if there is one; by default, only if their own host does not answer.

    Returns:
        The model, in eval mode.

    Raises:
        UserError: The config or checkpoint cannot be read, they do not fit each other, or no
            weights were published for the config. UserError is a ValueError.
        TypeError: The config is neither a path nor a Config.
    """
    if not isinstance(config, str | Path | Config):
        raise TypeError(f'config must be a path, a name or a Config, got {brief(config)}')
    saved = None
    if checkpoint is not None:
        # Reports a missing checkpoint before the slow import of a toolbox.
        saved = _read_checkpoint(str(checkpoint), mirror=mirror)
    if isinstance(config, str | Path):
        config = load_config(config, overrides=overrides)
    elif overrides:
        config = copy.deepcopy(config)
        apply_overrides(config, overrides)
    if checkpoint is None:
        checkpoint = published_weights(config.filename)
        if checkpoint is None:
            raise UserError(
                f'no weights were published for {config.filename}: give a checkpoint, or '
                f'{RANDOM_WEIGHTS!r} for random weights'
            )
        saved = _read_checkpoint(checkpoint, mirror=mirror)
    module = build_module(config)
    count = _count_classes(module)
    meta = _test_dataset_meta(config, count)
    if saved is not None:
        check_checkpoint_fits(module, saved, source=str(checkpoint))
        module.load_state_dict(saved['state_dict'], strict=False)
        classes = read_classes(saved, str(checkpoint))
        saved_meta = saved.get('meta', {}).get('dataset_meta') or {}
        meta.update({name.lower(): value for name, value in saved_meta.items()}, **classes)
    if meta.get('classes') is None:
        meta['classes'] = [str(label) for label in range(count)]
    elif isinstance(meta['classes'], str):
        raise UserError(
            f'{config.filename}: metainfo.classes of the test dataset must be names or the path of '
            f'a text file with one per line, got {meta["classes"]!r}'
        )
    elif len(meta['classes']) < count:
        raise UserError(
            f'{checkpoint} and the config name {len(meta["classes"])} classes '
            f'({shorten(meta["classes"], 3)}), but the model has {count}'
        )
    meta['palette'] = complete_palette(meta.get('palette'), len(meta['classes']))
    module.to(device or get_device())
    module.eval()  # returns nothing if a user's model overrides train() without that
    return Model(module, config, meta)


def _read_checkpoint(source: str, *, mirror: bool) -> dict[str, Any] | None:
    """Reads a checkpoint; None stands for random weights."""
    if source == RANDOM_WEIGHTS:
        return None
    with mirrors_first(mirror):
        return read_for_model(source)


def build_module(config: Config) -> nn.Module:
    """Builds the model of a config, with random weights, on the CPU.

    Raises:
        UserError: The config is wrong.
    """
    if config.get('model') is None:
        raise UserError(f'{config.filename} has no model')
    description = config.model.copy()
    # mmpretrain's configs have it next to the model.
    if config.get('data_preprocessor'):
        description.setdefault('data_preprocessor', config.data_preprocessor)
    with config_mistakes(config), DefaultScope.overwrite_default_scope(config.default_scope):
        return revert_sync_batchnorm(MODELS.build(description))


def _count_classes(module: nn.Module) -> int:
    """Counts the classes of a model's heads but a detector's semantic branch, which has others."""
    counts = [0]
    for name, each in module.named_modules():
        if type(each).__name__.endswith('Head') and 'semantic_head' not in name:
            # mmseg tells two classes apart by a single channel.
            is_binary = getattr(each, 'out_channels', None) == 1
            counts.append(2 if is_binary else getattr(each, 'num_classes', None) or 0)
    return max(counts)


def _test_dataset_meta(config: Config, count: int) -> dict[str, Any]:
    """Returns classes and palette of the config's test dataset, or of its type if it has enough."""
    dataset = find_test_dataset(config)
    known = dataset.get('metainfo') or {}
    of_type = getattr(find_class(DATASETS, dataset, config), 'METAINFO', {})
    if known.get('classes') is None and len(of_type.get('classes') or ()) >= count:
        known = {**of_type, **known}
    # Classes may be the path of a text file.
    return BaseDataset._load_metainfo(
        {name: known[name] for name in ('classes', 'palette') if name in known}
    )
