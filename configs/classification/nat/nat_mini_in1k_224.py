_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 81.8):
# https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth
model = dict(backbone=dict(type='NAT', arch='mini'), head=dict(in_channels=512))
