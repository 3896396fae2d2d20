"""Neighborhood Attention Transformer backbones for OpenMMLab.

Importing this package

- repairs what is broken in OpenMMLab, mainly on current PyTorch (:mod:`nat_mm.compat`);
- registers the backbones, hooks and an optimizer wrapper in mmengine's root registries, so that
  ``type='NAT'`` works in any config with ``custom_imports = dict(imports=['nat_mm'])``;
- extends mmengine's runners and FLOP counter (:func:`nat_mm.training.extend_mmengine`).
"""

from importlib.util import find_spec

from . import compat

__version__ = '0.2.0'

compat.apply()
if find_spec('mmengine') is not None:  # nat_mm.ops works without it
    from . import backbones  # noqa: F401
    from .inference.names import name_own_models
    from .training import extend_mmengine

    extend_mmengine()
    name_own_models()


def __getattr__(name: str) -> object:
    # Imported on demand, since a training run does not need it.
    if name == 'load_model':
        from .inference.load_model import load_model

        return load_model
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
