_base_ = '../../../_base_/schedules/segmentation_160k.py'

# Mixed precision, as published: fp16 on a GPU, bf16 on a CPU.
optim_wrapper = dict(type='AutocastOptimWrapper')
