_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 84.3):
# https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth
model = dict(backbone=dict(type='NAT', arch='base'), head=dict(in_channels=1024))
