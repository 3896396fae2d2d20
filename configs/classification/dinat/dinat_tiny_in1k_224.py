_base_ = '../_base_/imagenet_300e_224.py'
# Published weights (top-1 82.7):
# https://shi-labs.com/projects/dinat/checkpoints/imagenet1k/dinat_tiny_in1k_224.pth
model = dict(backbone=dict(type='DiNAT', arch='tiny'), head=dict(in_channels=512))
