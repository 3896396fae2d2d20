# Classifies by a vote of the 20 nearest training images; nothing is trained, the head is not used.
_base_ = '../nat/nat_tiny_in1k_224.py'
custom_imports = dict(imports=['nat_mm', 'nat_mm.analysis.nearest_neighbors'])
test_cfg = dict(
    type='NearestNeighborTestLoop',
    memory_dataloader=dict(
        _base_.test_dataloader, dataset=dict(_base_.test_dataloader.dataset, split='train')
    ),
)
