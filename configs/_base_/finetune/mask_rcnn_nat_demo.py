# To fine-tune the demo's detector on few images, on a CPU if need be.
_base_ = ['../models/mask_rcnn_nat_demo.py', './detection.py']
optim_wrapper = dict(optimizer=dict(lr=5e-4))
