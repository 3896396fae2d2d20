"""Generates a small dataset for the demo: textured objects over real photographs.

``nat-mm make-scenes FOLDER`` writes the dataset, with COCO instance annotations and ADE20K-style
label maps of the same scenes. It needs opencv, pycocotools and scikit-image.
"""

from nat_mm.demo.kinds import KINDS, PALETTE
from nat_mm.demo.options import DatasetOptions
from nat_mm.demo.scenes import Scene, SceneObject, make_scene
from nat_mm.demo.writer import write_dataset

__all__ = [
    'KINDS',
    'PALETTE',
    'DatasetOptions',
    'Scene',
    'SceneObject',
    'make_scene',
    'write_dataset',
]
