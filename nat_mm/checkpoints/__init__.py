"""Reads, recognizes, converts and loads checkpoints."""

from nat_mm.checkpoints.conversion import Conversion, convert_checkpoint
from nat_mm.checkpoints.layouts import convert_weights
from nat_mm.checkpoints.loading import KeyReport, compare_keys, load_pretrained
from nat_mm.checkpoints.meta import read_classes
from nat_mm.checkpoints.published import mirrors_first
from nat_mm.checkpoints.reading import for_whole_model, read_before, read_checkpoint

__all__ = [
    'Conversion',
    'KeyReport',
    'compare_keys',
    'convert_checkpoint',
    'convert_weights',
    'for_whole_model',
    'load_pretrained',
    'mirrors_first',
    'read_before',
    'read_checkpoint',
    'read_classes',
]
