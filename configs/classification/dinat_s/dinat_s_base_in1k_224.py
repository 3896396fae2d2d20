_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 83.8):
# https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_s_base_in1k_224.pth
model = dict(backbone=dict(type='DiNAT_s', arch='base'), head=dict(in_channels=1024))
