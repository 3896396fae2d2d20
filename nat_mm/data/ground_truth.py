"""Finds data without the ground truth that the model or the evaluators need."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS

from nat_mm.config.datasets import walk_datasets
from nat_mm.config.objects import find_class, walk_dicts
from nat_mm.data.findings import Finding
from nat_mm.data.paths import find_evaluators
from nat_mm.data.sources import DataSource, is_known

CLASSIFIERS_METRICS = {'Accuracy', 'SingleLabelMetric', 'MultiLabelMetric', 'ConfusionMatrix'}
"""Metrics of mmpretrain that read ``gt_label``."""
PIPELINE_METRICS = {'IoUMetric', 'VOCMetric', 'CocoMetric'}
"""Metrics of mmseg and mmdet that read what the pipeline loads, CocoMetric without an ann_file."""


def find_missing_ground_truth(
    config: Config, split: str, sources: Sequence[DataSource]
) -> Iterator[Finding]:
    """Compares what datasets load with what the model, or a split's evaluators, need.

    OpenMMLab's metrics stop a run by a KeyError at its first validation, after hours of training.

    Args:
        config: Config of the run.
        split: ``train``, ``val`` or ``test``.
        sources: The datasets of that split.

    Yields:
        The datasets that load no ground truth.
    """
    if split == 'train':
        yield from _find_untrainable(config, sources)
        return
    for place, evaluator in find_evaluators(config, split):
        kind = find_class(METRICS, evaluator, config)
        names = {each.__name__ for each in getattr(kind, '__mro__', ())}
        is_users = kind is not None and not is_known(kind.process)
        if is_users or evaluator.get('format_only') or evaluator.get('ann_file'):
            continue
        for source in sources:
            if 'CocoMetric' in names and _packs_instances(source):
                continue
            if names & PIPELINE_METRICS and _loads_no_annotations(source):
                yield Finding(_describe(place, source))
            elif names & CLASSIFIERS_METRICS and not getattr(source.dataset, 'with_label', True):
                yield Finding(
                    f'{place} needs the ground truth, but {source.place}.with_label is False: '
                    f'set it to True, or {split}_evaluator, {split}_dataloader and {split}_cfg to '
                    'None'
                )


def _find_untrainable(config: Config, sources: Sequence[DataSource]) -> Iterator[Finding]:
    """Yields the datasets from which a detector or segmentor cannot learn."""
    has_head = any(name.endswith('_head') for name in config.get('model') or {})
    if config.default_scope not in ('mmdet', 'mmseg') or not has_head or not sources:
        return
    kinds = [find_class(MODELS, config.model, config)]
    kinds += [find_class(DATASETS, each, config) for _, each in walk_datasets(config, 'train')]
    if not all(kind is None or is_known(kind) for kind in kinds):
        # Users' models learn from images without labels, too, such as those of another domain.
        return
    for source in sources:
        is_outermost = source.place == 'train_dataloader.dataset'
        # A wrapper's own pipeline, such as MultiImageMixDataset's, may load the ground truth.
        if is_outermost or 'pipeline' not in config.train_dataloader.dataset:
            if _loads_no_annotations(source):
                yield Finding(_describe('model', source))


def _describe(who: str, source: DataSource) -> str:
    return (
        f'{who} needs the ground truth, but {source.place}.pipeline does not load it: write '
        "dict(type='LoadAnnotations') there before the packing"
    )


def _packs_instances(source: DataSource) -> bool:
    """Whether a pipeline keeps the objects as the annotation file has them."""
    return any('instances' in getattr(each, 'meta_keys', ()) for each in source.transforms)


def _loads_no_annotations(source: DataSource) -> bool:
    """Whether a pipeline surely loads none: users' transforms and nested ones may."""
    kinds = [type(each) for each in source.transforms]
    known = all(map(is_known, kinds))
    loads = any('Annotation' in kind.__name__ for kind in kinds)
    steps = source.config.get('pipeline') or ()
    nested = any(path and 'type' in each for step in steps for path, each in walk_dicts(step))
    return bool(kinds) and known and not nested and not loads
