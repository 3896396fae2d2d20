# Fine-tunes NAT-Mini, trained on ADE20K, on few images.
_base_ = ['../../segmentation/_base_/models/upernet.py', './segmentation.py']
load_from = 'https://shi-labs.com/projects/nat/checkpoints/SEG/nat_mini_upernet.pth'
model = dict(data_preprocessor=dict(size=(320, 320)), backbone=dict(arch='mini'))
