_base_ = './adamw_300e.py'

# Published: 30 epochs, linear decay from 5e-5 without warm-up, in float32, with a weight decay of
# 1e-4 for DiNAT-Large at 224, and less at 384. Our choices: the final learning rate, 5e-6, which is
# the lowest of the other schedule, and for DiNAT_s-Large at 224, the weight decay of DiNAT-Large.
max_epochs = 30
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=0.1,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=5e-5, weight_decay=1e-4))

# 64 images per GPU are published; we assume that the learning rate is for 8 GPUs.
auto_scale_lr = dict(base_batch_size=512)
