_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 83.7):
# https://shi-labs.com/projects/nat/checkpoints/CLS/nat_small.pth
model = dict(backbone=dict(type='NAT', arch='small'), head=dict(in_channels=768))
