_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 81.8):
# https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_mini_in1k_224.pth
model = dict(backbone=dict(type='DiNAT', arch='mini'), head=dict(in_channels=512))
