_base_ = '../nat/nat_tiny_in1k_224.py'
model = dict(backbone=dict(downsampler='patch'))
