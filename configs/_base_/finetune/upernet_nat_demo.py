# To fine-tune the demo's segmentor on few images, on a CPU if need be.
_base_ = ['../models/upernet_nat_demo.py', './segmentation.py']
optim_wrapper = dict(optimizer=dict(lr=5e-4))
