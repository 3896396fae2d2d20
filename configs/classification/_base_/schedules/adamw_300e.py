# Published: 300 epochs, including 20 of warm-up, and 10 more at the lowest learning rate. The
# authors' cosine starts at epoch 0, hidden by the warm-up; mmengine's starts after it. They differ
# by at most 1.1%.
max_epochs = 310
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=5e-6,
        T_max=280,
        begin=20,
        end=300,
        convert_to_iter_based=True,
    ),
]

# Mixed precision as in the published experiments: fp16 on a GPU, bf16 on a CPU.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    # Biases, norms and layer scales are vectors. The authors' models exclude rpb from weight decay.
    paramwise_cfg=dict(
        bias_decay_mult=0.0, flat_decay_mult=0.0, custom_keys={'.rpb': dict(decay_mult=0.0)}
    ),
    clip_grad=dict(max_norm=5.0),
)

# The learning rate is for batches of 1024 images: 8 GPUs with 128 images each.
auto_scale_lr = dict(enable=False, base_batch_size=1024)
