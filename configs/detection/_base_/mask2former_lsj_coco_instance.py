_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'

# mmdet's config inherits the folders of panoptic segments, which are not used here.
train_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='train2017/')))
val_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='val2017/')))
test_dataloader = val_dataloader
