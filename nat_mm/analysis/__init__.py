"""Shows what models look at: attention windows, receptive fields, saliency."""

from nat_mm.analysis.fields import (
    ReceptiveField,
    attention_rollouts,
    receptive_fields,
)
from nat_mm.analysis.prepared_image import PreparedImage, prepare_image
from nat_mm.analysis.windows import AttentionWindow, attention_windows, find_backbone

__all__ = [
    'AttentionWindow',
    'PreparedImage',
    'ReceptiveField',
    'attention_rollouts',
    'attention_windows',
    'find_backbone',
    'prepare_image',
    'receptive_fields',
]
