_base_ = [
    './models/cascade_mask_rcnn.py',
    './datasets/coco_instance_multiscale.py',
    './schedules/adamw_3x.py',
    './default_runtime.py',
]
