_base_ = 'swin_tiny_in1k_224.py'
model = dict(backbone=dict(tokenizer='convolution', downsampler='convolution'))
