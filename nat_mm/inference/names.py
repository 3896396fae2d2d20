"""Teaches mmengine's hub, the inferencers and mmpretrain the model names of `load_model`."""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import nat_mm_startup

if TYPE_CHECKING:
    from torch import nn


def name_own_models() -> None:
    """Patches the inferencers and mmpretrain's list of models as soon as they are imported."""
    nat_mm_startup.when_imported('mmengine.infer.infer', _name_for_inferencers)
    nat_mm_startup.when_imported('mmpretrain.apis.model', _name_for_mmpretrain)


def _name_for_inferencers(infer: ModuleType) -> None:
    load = infer.BaseInferencer._load_model_from_metafile

    def load_model_from_metafile(self: Any, model: str) -> tuple[Any, str | None]:
        from nat_mm.config import zoo

        if not zoo.is_model(model):
            return load(self, model)
        path = zoo.find_config(model)
        return infer.Config.fromfile(path), zoo.published_weights(path)

    infer.BaseInferencer._load_model_from_metafile = load_model_from_metafile


def _name_for_mmpretrain(model: ModuleType) -> None:
    hub = model.ModelHub
    register = hub._register_mmpretrain_models

    # mmpretrain reads its own metafiles only when it is asked for a model, too.
    def register_models() -> None:
        from nat_mm.checkpoints.published import FOLDER, read_model_zoo

        register()
        for name, entry in read_model_zoo().items():
            if entry['Config'].startswith('configs/classification/') and not hub.has(name):
                hub._models_dict[name] = model.Model.from_dict(
                    {**entry, 'Config': str(FOLDER / entry['Config'])},
                    str(FOLDER / 'model-index.yml'),
                )

    hub._register_mmpretrain_models = staticmethod(register_models)


def build_for_hub(cfg_path: str, pretrained: bool, **kwargs: Any) -> 'nn.Module':
    """Builds a model for ``mmengine.hub.get_model``; called by `nat_mm_startup`.

    Args:
        cfg_path: ``nat_mm::`` and the path of a config.
        pretrained: Whether to load the published weights.
        **kwargs: Arguments of the model that override the config's.
    """
    from nat_mm.inference.load_model import RANDOM_WEIGHTS, load_model

    overrides = {f'model.{name}': value for name, value in kwargs.items()}
    model = load_model(
        cfg_path, None if pretrained else RANDOM_WEIGHTS, device='cpu', overrides=overrides
    ).module
    # As in mmengine, so that a Runner does not reinitialize pretrained weights.
    model._is_init = pretrained  # type: ignore[assignment]
    model.train()
    return model
