# Fine-tunes the demo's segmentor on few images, possibly on a CPU.
_base_ = ['../models/upernet_nat_demo.py', './segmentation.py']
optim_wrapper = dict(optimizer=dict(lr=5e-4))
