# Fine-tunes the demo's detector for boxes only.
_base_ = ['../models/mask_rcnn_nat_demo.py', './boxes.py']
model = dict(roi_head=dict(mask_roi_extractor=None, mask_head=None))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
