_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 83.8):
# https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_small_in1k_224.pth
model = dict(backbone=dict(type='DiNAT', arch='small'), head=dict(in_channels=768))
