_base_ = [
    './models/upernet.py',
    './datasets/ade20k_640x640.py',
    './schedules/adamw_160k.py',
    './default_runtime.py',
]

model = dict(data_preprocessor=dict(size=(640, 640)))
