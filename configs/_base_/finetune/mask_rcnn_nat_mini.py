# Fine-tunes NAT-Mini, trained on COCO, on few images.
_base_ = ['../../detection/_base_/models/mask_rcnn.py', './detection.py']
load_from = 'https://shi-labs.com/projects/nat/checkpoints/DET/nat_mini_maskrcnn.pth'
model = dict(backbone=dict(arch='mini'))
