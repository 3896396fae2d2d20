"""Connects mmengine's ``init_cfg`` with the loading of this project."""

import copy

from mmengine.model import PretrainedInit, update_init_info
from torch import nn

from nat_mm.checkpoints.loading import load_pretrained


class PretrainedBackboneInit(PretrainedInit):
    """mmengine's ``Pretrained`` initializer, with :func:`load_pretrained` as its loader."""

    def __call__(self, module: nn.Module) -> None:
        """Loads the checkpoint into ``module`` and notes it in mmengine's initialization log."""
        load_pretrained(module, self.checkpoint, prefix=self.prefix, map_location=self.map_location)
        update_init_info(module, init_info=self._get_init_info())


def with_backbone_loader(init_cfg: dict | list[dict] | None) -> list[dict]:
    """Makes ``Pretrained`` entries of an ``init_cfg`` load through :func:`load_pretrained`.

    Args:
        init_cfg: mmengine initialization config; it is not changed.

    Returns:
        The same entries, those of type ``Pretrained`` last, as they override all others.
    """
    if init_cfg is None:
        return []
    entries = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg)
    others, pretrained = [], []
    for entry in entries:
        if entry['type'] in ('Pretrained', PretrainedInit):
            entry = copy.copy(entry)
            entry['type'] = PretrainedBackboneInit
            pretrained.append(entry)
        else:
            others.append(entry)
    return others + pretrained
