_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 83.2):
# https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth
model = dict(backbone=dict(type='NAT', arch='tiny'), head=dict(in_channels=512))
