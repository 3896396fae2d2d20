"""mmengine's hub and inferencers know the models of nat_mm by the names that `load_model` takes."""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import nat_mm_startup

if TYPE_CHECKING:
    from torch import nn


def name_own_models() -> None:
    """Changes both as soon as they are imported."""
    nat_mm_startup.when_imported('mmengine.infer.infer', _name_for_inferencers)
    nat_mm_startup.when_imported('mmengine.hub.hub', _build_for_hub)


def _name_for_inferencers(infer: ModuleType) -> None:
    load = infer.BaseInferencer._load_model_from_metafile

    def load_model_from_metafile(self: Any, model: str) -> tuple[Any, str | None]:
        from nat_mm.inference import zoo

        if not zoo.is_model(model):
            return load(self, model)
        path = zoo.find_config(model)
        return infer.Config.fromfile(path), zoo.published_weights(path)

    infer.BaseInferencer._load_model_from_metafile = load_model_from_metafile


def _build_for_hub(hub: ModuleType) -> None:
    get_model = hub.get_model

    def get_own_model(cfg_path: str, pretrained: bool = False, **kwargs: Any) -> 'nn.Module':
        if not cfg_path.startswith('nat_mm::'):
            return get_model(cfg_path, pretrained, **kwargs)
        from nat_mm.inference.model import RANDOM, load_model

        overrides = {f'model.{name}': value for name, value in kwargs.items()}
        checkpoint = None if pretrained else RANDOM
        model = load_model(cfg_path, checkpoint, device='cpu', overrides=overrides).module
        # As mmengine's: a Runner is not to initialize pretrained weights anew.
        model._is_init = pretrained  # type: ignore[assignment]
        return model.train()

    hub.get_model = get_own_model  # type: ignore[attr-defined]
