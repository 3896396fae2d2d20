"""Recognises the layout of a checkpoint by its keys, and converts between layouts."""

from nat_mm.checkpoints.authors import check_keys, drop_classifier, has_authors_layout
from nat_mm.checkpoints.huggingface import (
    from_huggingface,
    has_huggingface_layout,
    to_huggingface,
)
from nat_mm.checkpoints.openmmlab import (
    backbone_of,
    from_classifier,
    has_model_layout,
    is_classifier,
    name_last_norm,
    to_model,
)
from nat_mm.checkpoints.weights import LazyTensor, LazyWeights

TARGETS = ('model', 'backbone', 'authors', 'huggingface-nat', 'huggingface-dinat')


def find_layout(weights: LazyWeights) -> str | None:
    """Recognises a layout.

    Args:
        weights: Weights by key.

    Returns:
        ``model``, ``huggingface``, ``authors`` or, if the keys are of none of these, None.
    """
    if has_model_layout(weights):
        return 'model'
    if has_huggingface_layout(weights):
        return 'huggingface'
    if has_authors_layout(weights):
        return 'authors'
    return None


def convert_weights(
    weights: LazyWeights, *, to: str, source: str = 'the checkpoint'
) -> dict[str, LazyTensor]:
    """Converts weights of any known layout to another.

    Args:
        weights: Weights in the authors' layout, of a Hugging Face Nat or Dinat, or of an
            OpenMMLab model that has one of our backbones as ``backbone.``.
        to: Layout of the result.

            - ``model``: a whole OpenMMLab model. Detectors and segmenters keep their keys; a
              classifier becomes mmpretrain's ``ImageClassifier``: ``norm.*`` is its
              ``backbone.norm3.*``, ``head.*`` its ``head.fc.*``, the rest is under ``backbone.``.
            - ``backbone``: only the backbone, for a detector or segmenter: without a classifier's
              last norm and head, and without prefix.
            - ``authors``: as the authors published it.
            - ``huggingface-nat``, ``huggingface-dinat``: Hugging Face's model of that type; of
              detectors and segmenters only the backbone, as they have no others.
        source: Name of the file, for errors.

    Returns:
        The weights; they use up no memory until :meth:`LazyTensor.whole`.

    Raises:
        ValueError: If ``to`` is unknown, the weights are of no known layout or of another
            architecture, or the wanted layout cannot hold them.
    """
    if to not in TARGETS:
        raise ValueError(f'to must be one of {", ".join(TARGETS)}, got {to!r}')
    layout = find_layout(weights)
    if layout is None:
        shown = ', '.join(list(weights)[:3])
        raise ValueError(
            f'{source} is no checkpoint of a NAT, DiNAT or DiNAT_s, neither of the authors nor of '
            f'Hugging Face nor of OpenMMLab: it has {shown}, ...'
        )
    if layout == 'model' and not is_classifier(weights):
        backbone = backbone_of(weights)
        check_keys(backbone, source=source)
        if to in ('model', 'authors'):
            return dict(weights)
        weights = backbone
    elif layout == 'model':
        weights = from_classifier(weights)
    elif layout == 'huggingface':
        weights = from_huggingface(weights)
    check_keys(weights, source=source)
    if to == 'authors':
        return dict(weights)
    if to == 'model':
        return to_model(weights)
    if to == 'backbone':
        return drop_classifier(weights)
    return to_huggingface(weights, model_type=to.removeprefix('huggingface-'), source=source)


def take_backbone(
    weights: LazyWeights, *, prefix: str | None, keep_norm: bool, source: str
) -> dict[str, LazyTensor]:
    """Takes what belongs to a backbone, whatever else is there.

    Unlike :func:`convert_weights` it does not mind keys of another architecture.

    Args:
        weights: Weights of any layout.
        prefix: What the backbone's keys begin with. Without it, ``backbone.`` is assumed where
            keys begin with that.
        keep_norm: Whether a classifier's last norm is kept, as the norm of the last output.
        source: Name of the file, for errors.

    Returns:
        The backbone's weights under the names they have in the backbone.

    Raises:
        ValueError: If no key begins with ``prefix``.
    """
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        if not any(key.startswith(prefix) for key in weights):
            raise ValueError(f'no key in {source} begins with prefix {prefix!r}')
        # Left to the layout, which tells the last norm of a classifier from that of a detector.
        if prefix != 'backbone.':
            weights = backbone_of(weights, prefix)
    layout = find_layout(weights)
    if layout == 'model':
        weights = from_classifier(weights) if is_classifier(weights) else backbone_of(weights)
    elif layout == 'huggingface':
        weights = from_huggingface(weights)
    return drop_classifier(name_last_norm(weights) if keep_norm else weights)
