"""Loads a model for predictions from its config and checkpoint."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from nat_mm.checkpoints import read_before, read_classes
from nat_mm.errors import UserError
from nat_mm.inference.checkpoint import check_checkpoint_fits, read_for_model
from nat_mm.inference.classification_predictor import ClassificationPredictor
from nat_mm.inference.config import find_test_dataset, load_config
from nat_mm.inference.predictor import DetectionPredictor, Predictor, SegmentationPredictor


def load_predictor(
    config_path: str,
    checkpoint_source: str,
    *,
    device: str,
    out_dir: Path,
    score_threshold: float = 0.3,
    overrides: dict[str, Any] | None = None,
) -> Predictor:
    """Loads a detector, segmentor or classifier, whichever the config describes.

    Args:
        config_path: Config file.
        checkpoint_source: Path or URL of the checkpoint.
        device: Device on which it runs, such as ``cpu`` or ``cuda:0``.
        out_dir: Folder of the results.
        score_threshold: Lowest score of the objects that a detector draws and writes, 0 to 1.
        overrides: Values of ``--cfg-options``, keyed by dotted name.

    Returns:
        The model, ready to predict.

    Raises:
        UserError: Config or checkpoint cannot be read, or they do not belong together.
    """
    checkpoint = read_for_model(checkpoint_source)
    config = load_config(config_path, overrides=overrides)
    options = {'device': device, 'out_dir': out_dir}
    if 'classes' not in read_classes(checkpoint, checkpoint_source):
        # The toolboxes would take COCO's or Cityscapes' classes, whatever the config says.
        options['dataset_meta'] = _test_dataset_meta(config)
    arguments = (config, checkpoint_source)
    with read_before(checkpoint_source, checkpoint):
        if config.default_scope == 'mmdet':
            predictor = DetectionPredictor(*arguments, score_threshold=score_threshold, **options)
        elif config.default_scope == 'mmpretrain':
            predictor = ClassificationPredictor(*arguments, **options)
        else:
            predictor = SegmentationPredictor(*arguments, **options)
    check_checkpoint_fits(predictor.inferencer.model, checkpoint, source=checkpoint_source)
    _check_class_count(predictor, checkpoint_source)
    return predictor


def _check_class_count(predictor: Predictor, source: str) -> None:
    heads = (
        module
        for module in predictor.inferencer.model.modules()
        if type(module).__name__.endswith('Head')
    )
    count = max((getattr(head, 'num_classes', None) or 0 for head in heads), default=0)
    if len(predictor.classes) < count:
        raise UserError(
            f'{source} and the config name {len(predictor.classes)} classes '
            f'({", ".join(predictor.classes[:3])}, ...), but the model tells {count} apart'
        )


def _test_dataset_meta(config: Config) -> dict[str, Any]:
    """Classes and palette of the config's test data, as far as it says them."""
    dataset = find_test_dataset(config)
    kind = dataset.get('type')
    with DefaultScope.overwrite_default_scope(config.default_scope):
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    known = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    return {name: known[name] for name in ('classes', 'palette') if name in known}
