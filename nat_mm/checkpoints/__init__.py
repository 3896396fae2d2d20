"""Loading of pretrained backbones."""

from nat_mm.checkpoints.initializer import with_backbone_loader
from nat_mm.checkpoints.loading import KeyReport, compare_keys, load_pretrained

__all__ = ['KeyReport', 'compare_keys', 'load_pretrained', 'with_backbone_loader']
