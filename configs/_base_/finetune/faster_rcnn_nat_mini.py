# Fine-tunes NAT-Mini, trained on COCO, for boxes only.
_base_ = ['../../detection/_base_/models/mask_rcnn.py', './boxes.py']
load_from = 'https://shi-labs.com/projects/nat/checkpoints/DET/nat_mini_maskrcnn.pth'
model = dict(backbone=dict(arch='mini'), roi_head=dict(mask_roi_extractor=None, mask_head=None))
