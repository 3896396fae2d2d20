"""Finds outputs of the backbone that no head uses, which stops distributed training."""

from collections.abc import Iterator

from mmengine.config import Config

from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.data.findings import Finding
from nat_mm.data.shape_trace import ShapeTrace


def find_unused_outputs(trace: ShapeTrace, config: Config) -> Iterator[Finding]:
    """Finds norms of the backbone that get no gradient.

    DistributedDataParallel waits for the gradient of every parameter and stops at the second
    iteration, unless told otherwise. Training in a single process works.

    Args:
        trace: Trace of the model.
        config: Config of the run; it is distributed only with a ``launcher``.
    """
    backbone = trace.model.backbone
    wrapper = config.get('model_wrapper_cfg') or config
    if (
        config.get('launcher') in (None, 'none')
        or config.get('runner_type', 'Runner') != 'Runner'
        or wrapper.get('find_unused_parameters')
        or not isinstance(backbone, NeighborhoodBackbone)
    ):
        return
    indices = backbone.out_indices
    found = _find_taken(trace, config)
    if found is None:
        return
    why, taken, rest = found
    unused = [index for position, index in enumerate(indices) if position not in taken]
    if not any(getattr(backbone, f'norm{index}').weight.requires_grad for index in unused):
        return
    kept = tuple(indices[position] for position in sorted(taken))
    yield Finding(
        f'{why}, so that no gradient reaches norm{", norm".join(map(str, unused))} of '
        'model.backbone and DistributedDataParallel stops: write '
        f'model.backbone.out_indices={kept}{rest}, or find_unused_parameters=True',
        is_error=False,
    )


def _find_taken(trace: ShapeTrace, config: Config) -> tuple[str, set[int], str] | None:
    """Finds the outputs that are used.

    Returns:
        The reason, the positions of the outputs, and what else to change; None if unknown.
    """
    model, count = trace.model, len(trace.model.backbone.out_indices)
    neck = getattr(model, 'neck', None)
    start = getattr(neck, 'start_level', 0)
    if isinstance(start, int) and 0 < start < count and config.default_scope == 'mmdet':
        channels = list(neck.in_channels[start:])
        rest = f', model.neck.in_channels={channels} and model.neck.start_level=0'
        return f'model.neck.start_level is {start}', set(range(start, count)), rest
    head = type(getattr(model, 'head', None)).__name__
    if config.default_scope == 'mmpretrain' and head == 'LinearClsHead':
        return 'model.head takes the last output alone', {count - 1}, ''
    if config.default_scope == 'mmseg' and neck is None:
        heads = [getattr(model, name, None) for name in ('decode_head', 'auxiliary_head')]
        given = [getattr(head, 'in_index', None) for head in heads if head is not None]
        lists = [[each] if isinstance(each, int) else each for each in given]
        if all(isinstance(each, list | tuple) for each in lists):
            taken = {index % count for each in lists for index in each}
            return f'the heads have in_index {given}', taken, ' and in_index counted in these'
    return None
