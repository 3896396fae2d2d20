# A small k-NN classifier.
_base_ = ['./knn_nat_tiny_in1k_224.py', '../../_base_/heads.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(3,)),
    head=dict(in_channels=256),
)
