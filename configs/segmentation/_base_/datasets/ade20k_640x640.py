# Includes multi-scale and flip test-time augmentation (`tta_pipeline`, ratios 0.5 to 1.75).
_base_ = 'mmseg::_base_/datasets/ade20k_640x640.py'

train_dataloader = dict(batch_size=2)
