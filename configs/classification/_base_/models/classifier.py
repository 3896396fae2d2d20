# The output norm of the last stage (`norm3`) is the final `norm` of the released classifiers.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='NAT', arch='mini', out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
)
