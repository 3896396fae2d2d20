_base_ = 'mmpretrain::_base_/default_runtime.py'

# Registers the backbones and makes OpenMMLab run on current PyTorch.
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
