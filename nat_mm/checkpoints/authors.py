"""The layout of the authors' ImageNet checkpoints, which is also that of our backbones.

A classifier has a last ``norm`` and a ``head``; a backbone of a detector or segmenter has ``norm0``
to ``norm3``, one for each of its outputs, instead.
"""

import re
from collections.abc import Iterable

from nat_mm.checkpoints.weights import LazyTensor, LazyWeights

_KNOWN_KEY = re.compile(
    r"""
    patch_embed \. (?: proj (?: \. [01] )? | norm ) \. (?: weight | bias )
    | (?: levels | layers ) \. \d+ \. (?:
        blocks \. \d+ \. (?:
            (?: norm[12] | attn \. (?: qkv | proj ) | mlp \. fc[12] ) \. (?: weight | bias )
            | attn \. rpb
            | gamma[12]
        )
        | downsample \. (?: reduction \. weight | norm \. (?: weight | bias ) )
    )
    | norm \d* \. (?: weight | bias )
    | head \. (?: weight | bias )
    """,
    re.VERBOSE,
)


def has_authors_layout(keys: Iterable[str]) -> bool:
    """Tells whether keys are those of an ImageNet checkpoint or of a backbone."""
    return any(key.startswith('patch_embed.') for key in keys)


def check_keys(keys: Iterable[str], *, source: str) -> None:
    """Checks that keys are those of a NAT, DiNAT or DiNAT_s.

    Args:
        keys: Keys in the authors' layout.
        source: Name of the file, for the error.

    Raises:
        ValueError: If a key is of another architecture, or there is no attention.
    """
    keys = list(keys)
    foreign = [key for key in keys if not _KNOWN_KEY.fullmatch(key)]
    if foreign:
        shown = ', '.join(foreign[:3]) + (', ...' if len(foreign) > 3 else '')
        raise ValueError(
            f'{source} is of another architecture: NAT, DiNAT and DiNAT_s do not have {shown}'
        )
    if not any(key.endswith('.attn.rpb') for key in keys):
        raise ValueError(f'{source} has no layers of a NAT, DiNAT or DiNAT_s')


def last_stage(keys: Iterable[str]) -> int:
    """The index of the last stage of a backbone with these keys."""
    stages = [re.match(r'(?:levels|layers)\.(\d+)\.', key) for key in keys]
    return max((int(stage[1]) for stage in stages if stage), default=0)


def drop_classifier(weights: LazyWeights) -> dict[str, LazyTensor]:
    """Drops what a classifier has after its backbone: the last norm and the head."""
    return {
        key: tensor for key, tensor in weights.items() if not key.startswith(('norm.', 'head.'))
    }
