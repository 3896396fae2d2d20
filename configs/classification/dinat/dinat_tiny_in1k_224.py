_base_ = '../_base_/imagenet_300e_224.py'
model = dict(backbone=dict(type='DiNAT', arch='tiny'), head=dict(in_channels=512))
