"""Loading of pretrained backbones."""

from nat_mm.checkpoints.initializer import with_backbone_loader
from nat_mm.checkpoints.loading import load_pretrained

__all__ = ['load_pretrained', 'with_backbone_loader']
