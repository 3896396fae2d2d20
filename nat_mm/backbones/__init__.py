"""Backbones: image [B, 3, H, W] -> tuple of feature maps [B, C_i, H_i, W_i].

Importing this package registers the backbones in mmengine's root registry, where mmdet, mmseg and
mmpretrain all find them.
"""

from nat_mm.backbones import fsdp as fsdp
from nat_mm.backbones.dinat_s import DiNAT_s
from nat_mm.backbones.isotropic import NATIsotropic
from nat_mm.backbones.nat import NAT, DiNAT
from nat_mm.backbones.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['NAT', 'DiNAT', 'DiNAT_s', 'NATIsotropic', 'SimpleFeaturePyramid']
