# Fine-tunes the demo's detector on few images, possibly on a CPU.
_base_ = ['../models/mask_rcnn_nat_demo.py', './detection.py']
optim_wrapper = dict(optimizer=dict(lr=5e-4))
