"""Checkpoints: reading, recognising and converting them, and loading of pretrained backbones."""

from nat_mm.checkpoints.conversion import Conversion, convert_checkpoint
from nat_mm.checkpoints.files import read_checkpoint
from nat_mm.checkpoints.initializer import with_backbone_loader
from nat_mm.checkpoints.layouts import convert_weights
from nat_mm.checkpoints.loading import KeyReport, compare_keys, load_pretrained
from nat_mm.checkpoints.meta import read_classes
from nat_mm.checkpoints.scheme import converted_source
from nat_mm.checkpoints.weights import as_lazy

__all__ = [
    'Conversion',
    'KeyReport',
    'as_lazy',
    'compare_keys',
    'convert_checkpoint',
    'convert_weights',
    'converted_source',
    'load_pretrained',
    'read_checkpoint',
    'read_classes',
    'with_backbone_loader',
]
