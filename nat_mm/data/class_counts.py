"""Compares the numbers of classes that a model's heads assume with the classes of the data."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, Registry

from nat_mm.config.building import known_arguments
from nat_mm.config.datasets import SPLITS
from nat_mm.config.objects import type_name
from nat_mm.data.findings import Finding
from nat_mm.data.folders import find_class_names, has_classes_of_its_own
from nat_mm.data.paths import find_evaluators
from nat_mm.data.sources import DataSource, is_known
from nat_mm.errors import shorten

_OTHER_CLASSES = {
    'backbone',
    'data_preprocessor',
    'init_cfg',
    'neck',
    'reid',
    'rpn_head',
    'test_cfg',
    'train_cfg',
}
"""Parts of a model whose ``num_classes`` means something else or is not used."""
_OTHER_HEADS = {'STDCHead', 'VPDDepthHead'}
"""Heads that predict edges or depths, not classes."""


@dataclass(frozen=True)
class _Count:
    """A number of classes that a part of a model assumes.

    Attributes:
        key: Key of the number in the config, even if it is a default that the config omits.
        value: The number.
        is_given: Whether the config sets it; otherwise it is the default of the class.
        owner: Config of the part.
        is_sure: Whether it counts the classes of the data. In a user's own head it may count more,
            such as groups of classes, and heads that only a user's model or head has may predict
            something else, such as edges.
    """

    key: str
    value: int
    is_given: bool
    owner: Mapping[str, Any]
    is_sure: bool

    def __str__(self) -> str:
        return f'{self.key} is {self.value}' + ('' if self.is_given else ' by default')


def find_class_count_problems(
    config: Config, sources: Mapping[str, Sequence[DataSource]]
) -> Iterator[Finding]:
    """Compares the classes of the datasets with each other and with those of every head.

    Args:
        config: Config of the run, for any framework.
        sources: The datasets of ``train``, ``val`` and ``test``.

    Yields:
        What is wrong.
    """
    named = []
    for source in (each for split in SPLITS for each in sources.get(split, ())):
        if has_classes_of_its_own(config, source.split):
            continue
        classes = find_class_names(source)
        if isinstance(classes, str):
            # COCO's classes have checks of their own.
            if not source.is_coco:
                yield Finding(
                    f'{source.place}.metainfo.classes is the text {classes!r}, not a tuple of '
                    f'names: write classes=({classes!r},), with the comma'
                )
        elif classes:
            named.append((source, list(classes)))
        elif source.split != 'train' and _is_semantic(source):
            yield Finding(
                f'{source.place} has no classes, which {source.split} needs: write '
                'metainfo=dict(classes=(...)) with the names in the order of their values'
            )
    is_closed = has_fixed_classes(config)
    if named and is_closed:
        yield from _compare_datasets(named)
    yield from _compare_mixing(config)
    if named and is_closed:
        yield from _compare_heads(config, *named[0])
    yield from _compare_weights(config)
    yield from _compare_top(config, sources)


def has_fixed_classes(config: Config) -> bool:
    """Whether a model has the same classes in all data.

    Models with a language model have words for classes; trackers take data with other classes.
    """
    return not {'language_model', 'tracker'} & (config.get('model') or {}).keys()


def find_counts(config: Config, name: str = 'num_classes') -> list[_Count]:
    """Finds the numbers of classes that the heads of a model and their losses assume.

    Args:
        config: Config of the run.
        name: Name of the argument.

    Returns:
        The numbers in the config and the defaults of registered classes, in the config's order.
    """
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        return list(_walk(config.model, 'model', name, registry, is_sure=True))


def _walk(
    part: Any, place: str, name: str, registry: Registry, *, is_sure: bool
) -> Iterator[_Count]:
    if isinstance(part, list | tuple):
        for index, child in enumerate(part):
            yield from _walk(child, f'{place}.{index}', name, registry, is_sure=is_sure)
    if not isinstance(part, dict):
        return
    kind = part.get('type')
    kind = registry.get(kind) if isinstance(kind, str) else kind
    if not isinstance(kind, type):
        kind = None
    elif kind.__name__ in _OTHER_HEADS:
        return
    value = part.get(name)
    # A head with num_classes may have a base class that counts things and stuff.
    if value is None and kind is not None and (name == 'num_classes' or 'num_classes' not in part):
        value = _find_default(kind, name)
    # mmdet's losses have -1 if the head sets the number.
    if type(value) is int and value >= 0 and not part.get('class_agnostic'):
        is_usual = kind is None or is_known(kind)
        yield _Count(f'{place}.{name}', value, name in part, part, is_sure and is_usual)
    for key, child in part.items():
        if key not in _OTHER_CLASSES:
            is_usual = kind is None or _is_usual_argument(kind, key)
            child_place = f'{place}.{key}'
            yield from _walk(child, child_place, name, registry, is_sure=is_sure and is_usual)


def _find_default(kind: type, name: str) -> Any:
    """Finds the default of an argument, even if a class passes it on to its base; else None."""
    for each in kind.__mro__:
        if '__init__' not in vars(each):
            continue
        parameters = inspect.signature(vars(each)['__init__']).parameters
        if name in parameters:
            return parameters[name].default
        if all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
            return None
    return None


def _is_usual_argument(kind: type, name: str) -> bool:
    """Whether a class is OpenMMLab's, or inherits the argument from one that is."""
    base = next((each for each in kind.__mro__ if is_known(each)), None)
    return base is kind or (base is not None and name in (known_arguments(base) or ()))


def _is_semantic(source: DataSource) -> bool:
    return hasattr(source.dataset, 'seg_map_suffix') and hasattr(source.dataset, 'label_map')


def _compare_datasets(named: Sequence[tuple[DataSource, list[str]]]) -> Iterator[Finding]:
    first, expected = named[0]
    for source, classes in named[1:]:
        # Class folders of classifiers are compared in `find_folder_problems`.
        if classes == expected or source.is_coco or hasattr(source.dataset, 'folder_to_idx'):
            continue
        if find_class_names(source, from_folders=False) is None:
            continue
        differing = [pair for pair in zip(expected, classes, strict=False) if pair[0] != pair[1]]
        detail = f'they have {len(expected)} and {len(classes)}'
        if differing:
            index = expected.index(differing[0][0])
            detail += f', and class {index} is {differing[0][0]!r} and {differing[0][1]!r}'
        yield Finding(
            f'the classes of {first.place} and {source.place} differ: {detail}. Write the same '
            'metainfo.classes for both, in the same order',
            is_error=[_plain(each) for each in expected] != [_plain(each) for each in classes],
        )


def _plain(name: object) -> str:
    return ''.join(letter for letter in str(name).lower() if letter.isalnum())


def _compare_heads(config: Config, source: DataSource, classes: list[str]) -> Iterator[Finding]:
    wrong: dict[tuple[int, bool], list[_Count]] = {}
    for count, expected in _expected_counts(config, source, classes):
        if count.value != expected:
            wrong.setdefault((expected, count.is_sure), []).append(count)
    for (expected, is_sure), counts in wrong.items():
        name = counts[0].key.rpartition('.')[2]
        what = {'num_things_classes': 'thing classes', 'num_stuff_classes': 'stuff classes'}
        have = f'{expected} {what.get(name, "classes")}'.replace('1 classes', '1 class')
        if len(classes) != expected and name == 'num_classes':
            have = f'{expected} thing classes'
        start = f'the {source.split} dataset has {have}, but {" and ".join(map(str, counts))}: '
        each = 'it' if len(counts) == 1 else 'each'
        if is_sure:
            yield Finding(f'{start}set {each} to {expected}' + _describe_classes(source, classes))
        else:
            yield Finding(
                f'{start}set {each} to {expected} unless your own part counts something else',
                is_error=False,
            )
    if config.default_scope == 'mmseg':
        yield from _find_softmax_of_one(config)


def _describe_classes(source: DataSource, classes: list[str]) -> str:
    kind = type(source.dataset)
    if list(kind.METAINFO.get('classes') or ()) == classes and not _gives_classes(source):
        return (
            f', or, as {source.place}.metainfo names no classes and those of {kind.__name__} hold '
            f'({shorten(classes, 3)}), set its classes'
        )
    return f' (the classes are {shorten(classes)})'


def _gives_classes(source: DataSource) -> bool:
    return bool(
        (source.config.get('metainfo') or {}).get('classes') or source.config.get('classes')
    )


def _expected_counts(
    config: Config, source: DataSource, classes: list[str]
) -> Iterator[tuple[_Count, int]]:
    """Yields the numbers of classes in the model, each with the number expected."""
    counts = find_counts(config)
    if config.default_scope == 'mmpretrain':
        # Other models, such as captioning models, have no classes.
        counts = [each for each in counts if each.key.startswith('model.head.')]
    if config.default_scope == 'mmseg':
        for count in counts:
            # With one output channel, the foreground may be counted with or without the background.
            is_binary = count.value == 1 and count.owner.get('out_channels') in (None, 1)
            yield count, 1 if is_binary and len(classes) == 2 else len(classes)
        return
    if config.default_scope != 'mmdet':
        yield from ((count, len(classes)) for count in counts)
        return
    metainfo = source.dataset.metainfo
    things, stuff = (metainfo.get(f'{each}_classes') for each in ('thing', 'stuff'))
    is_panoptic = things is not None and 'segments' not in classes
    expected = {'num_things_classes': len(classes), 'num_stuff_classes': 0}
    if is_panoptic:
        expected = {'num_things_classes': len(things), 'num_stuff_classes': len(stuff or ())}
    for name, number in expected.items():
        yield from ((count, number) for count in find_counts(config, name))
    for count in counts:
        # The semantic branch of two-stage detectors has separate classes.
        if '.semantic_head.' not in count.key:
            yield count, expected['num_things_classes']


def _find_softmax_of_one(config: Config) -> Iterator[Finding]:
    for count in find_counts(config):
        losses = count.owner.get('loss_decode') or {}
        for loss in [losses] if isinstance(losses, dict) else losses:
            is_softmax = type_name(loss) == 'CrossEntropyLoss' and not loss.get('use_sigmoid')
            if count.value == 1 and is_softmax:
                yield Finding(
                    f'{count}, and the softmax of one class is always 1: set it to 2, with the '
                    'background as class 0, or loss_decode.use_sigmoid=True',
                    is_error=count.is_sure,
                )


def _compare_mixing(config: Config) -> Iterator[Finding]:
    head = config.model.get('head') or {}
    if config.default_scope != 'mmpretrain' or 'num_classes' not in head:
        return
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    prepared = preprocessor.get('num_classes')
    mixes = (config.model.get('train_cfg') or {}).get('augments')
    if mixes and prepared != head.num_classes:
        yield Finding(
            f'data_preprocessor.num_classes is {prepared}, but model.head.num_classes is '
            f'{head.num_classes}: both must be the same, as images are mixed (train_cfg.augments)'
        )


def _compare_weights(config: Config) -> Iterator[Finding]:
    """Checks the class weights of losses: one per class, plus the background if it is a class."""
    counts = find_counts(config)
    if config.default_scope == 'mmdet':
        stuff = {
            each.key.rpartition('.')[0]: each for each in find_counts(config, 'num_stuff_classes')
        }
        for things in find_counts(config, 'num_things_classes'):
            place = things.key.rpartition('.')[0]
            total = things.value + (stuff[place].value if place in stuff else 0)
            counts.append(replace(things, value=total, is_given=True))
    for count in counts:
        place, _, name = count.key.rpartition('.')
        for key in ('loss_cls', 'loss_decode', 'loss'):
            losses = count.owner.get(key) or ()
            for loss in [losses] if isinstance(losses, dict) else losses:
                weights = loss.get('class_weight') if isinstance(loss, dict) else None
                if not isinstance(weights, list | tuple):
                    continue
                # Mask classification heads; SAN's is recognized by the name of its loss.
                classifies_masks = key == 'loss_cls' or 'loss_cls' in loss.get('loss_name', '')
                has_background = classifies_masks and not loss.get('use_sigmoid')
                expected = count.value + has_background
                if len(weights) != expected:
                    last = ' and one for what is no object' if has_background else ''
                    total = f'{place}.{name}' if name == 'num_classes' else f"the sum of {place}'s"
                    yield Finding(
                        f'{place}.{key}.class_weight has {len(weights)} values, but {total} is '
                        f'{count.value}: give {expected}, one for each class{last}',
                        is_error=count.is_sure,
                    )


def _compare_top(config: Config, splits: Iterable[str]) -> Iterator[Finding]:
    """Finds top-k accuracies of models with fewer than k classes."""
    head = config.model.get('head') or {}
    if config.default_scope != 'mmpretrain' or type(head.get('num_classes')) is not int:
        return
    asked = {'model.head.topk': head.get('topk')} if head.get('cal_acc') else {}
    for split in splits:
        for _, evaluator in find_evaluators(config, split):
            if type_name(evaluator) == 'Accuracy':
                asked[f'{split}_evaluator.topk'] = evaluator.get('topk')
    for key, value in asked.items():
        largest = max(value) if isinstance(value, list | tuple) and value else value
        if isinstance(largest, int) and largest > head.num_classes:
            yield Finding(
                f'{key} is {value}, but model.head.num_classes is {head.num_classes}: '
                f'with so few classes there is no top {largest}: set it to (1,)'
            )
