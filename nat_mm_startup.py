"""Import hooks that make OpenMMLab's own commands work with nat_mm.

``mim test mmdet``, the inferencers and others import ``mmcv.ops`` before they read the config
that would import nat_mm, so what they need has to be there from the start of Python. The file
``nat_mm_startup.pth`` in site-packages calls :func:`start`, which imports nothing but the standard
library and only watches for a few modules:

- ``mmcv._ext``, the compiled operators: served by :mod:`nat_mm.compat.mmcv_ops` where no other
  finder knows it (mmcv-lite). A compiled one always wins.
- ``panopticapi``, which mmdet needs for panoptic data: served from :mod:`nat_mm.compat.panopticapi`
  where no other finder knows it.
- ``mmengine.config.utils``: told that ``nat_mm::`` names this package, and ``mmseg::`` a module
  that onedl-mmsegmentation brings, too.
- ``mmengine.config.config``: reads ``_base_ = 'nat_mm::...'`` from this package's own folder.
- ``mmengine.runner.checkpoint``: reads checkpoints through :mod:`nat_mm.checkpoints.reading`.
- ``mmengine.infer.infer`` and ``mmengine.hub.hub``: know the names of nat_mm's model zoo.
- ``mmengine.runner.runner``, ``mmengine.runner._flexible_runner`` and ``mmengine.infer.infer``: do
  not run the config inside a checkpoint (:mod:`nat_mm.compat.resuming`).
- ``mmpretrain.utils.dependency``: told that its multimodal models cannot be imported beside
  transformers 4.56 and later; mmdet, too, imports them where transformers is installed.

Set the environment variable ``NAT_MM_NO_STARTUP=1`` to start Python without the hooks; importing
nat_mm itself still installs them.
"""

import os
import sys
from importlib.machinery import ModuleSpec


class _AfterImport:
    """Finder that calls functions on a module right after that module was executed."""

    def __init__(self):
        self.callbacks = {}  # module name -> functions

    def find_spec(self, name, path=None, target=None):
        if name not in self.callbacks:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None:
            self._call_after(spec.loader, name)
        return spec

    def _call_after(self, loader, name):
        execute = loader.exec_module

        def exec_module(module):
            execute(module)
            if module.__name__ == name:  # a loader may serve several modules
                for callback in self.callbacks[name]:
                    callback(module)

        loader.exec_module = exec_module


class _MissingOps:
    """Finder of last resort for ``mmcv._ext``, and the loader of what it finds."""

    def find_spec(self, name, path=None, target=None):
        if name != 'mmcv._ext' or not _is_installed('nat_mm'):
            return None
        return ModuleSpec(name, self, origin='nat_mm.compat.mmcv_ops')

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        from nat_mm.compat import mmcv_ops

        mmcv_ops.fill(module)


class _MissingPanopticApi:
    """Finder of last resort for ``panopticapi``."""

    def find_spec(self, name, path=None, target=None):
        if name != 'panopticapi' or not _is_installed('nat_mm'):
            return None
        from importlib.util import spec_from_file_location

        folder = os.path.join(_package_folder(), 'compat', name)
        return spec_from_file_location(
            name, os.path.join(folder, '__init__.py'), submodule_search_locations=[folder]
        )


_after_import = _AfterImport()
_missing_ops = _MissingOps()


def start():
    """Install the hooks at the start of Python, unless ``NAT_MM_NO_STARTUP=1``."""
    if os.environ.get('NAT_MM_NO_STARTUP') != '1':
        install()


def install():
    """Install the hooks; further calls change nothing."""
    if _missing_ops in sys.meta_path:
        return
    sys.meta_path.insert(0, _after_import)
    sys.meta_path += [_missing_ops, _MissingPanopticApi()]
    when_imported('mmengine.config.utils', _name_config_packages)
    when_imported('mmengine.config.config', _find_own_configs)
    when_imported('mmengine.runner.checkpoint', _guard_checkpoints)
    when_imported('mmengine.runner.runner', _guard_resume)
    when_imported('mmengine.runner._flexible_runner', _guard_resume)
    when_imported('mmengine.infer.infer', _guard_inferencers)
    when_imported('mmengine.infer.infer', _name_models_for_inferencers)
    when_imported('mmengine.hub.hub', _build_own_models)
    when_imported('mmpretrain.utils.dependency', _leave_out_multimodal_models)


def when_imported(name, callback):
    """Call ``callback(module)`` once the module ``name`` is imported, now if it already is."""
    if name in sys.modules:
        callback(sys.modules[name])
    else:
        _after_import.callbacks.setdefault(name, []).append(callback)


def _name_config_packages(config_utils):
    config_utils.MODULE2PACKAGE.setdefault('nat_mm', 'nat_mm')
    if _is_installed('mmseg'):
        # mmengine looks for a distribution 'mmsegmentation', and the fork's has another name.
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'


def _find_own_configs(config):
    find = config.Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        package, _, name = cfg_path.partition('::')
        if package != 'nat_mm' or not _is_installed('nat_mm'):
            return find(cfg_path, filename)
        # mmengine itself would look beside the metadata, where an editable install has no files.
        path = os.path.join(_package_folder(), '.mim', 'configs', name)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'nat_mm has no config {name!r} ({cfg_path!r} in {filename})')
        # Without a scope, types are looked up in the config's default_scope, mmdet or mmseg;
        # mmengine would say 'nat_mm', which has no registries.
        return path, None

    config.Config._get_cfg_path = staticmethod(get_cfg_path)


def _guard_checkpoints(checkpoint):
    from functools import wraps

    load = checkpoint.CheckpointLoader.load_checkpoint

    @wraps(load)
    def load_checkpoint(filename, map_location=None, logger='current'):
        if not _is_installed('nat_mm'):
            return load(filename, map_location, logger)
        # Imported here because nat_mm needs mmengine to be complete.
        from nat_mm.checkpoints.reading import load_for_mmengine

        return load_for_mmengine(load, filename, map_location, logger)

    checkpoint.CheckpointLoader.load_checkpoint = staticmethod(load_checkpoint)


def _guard_resume(module):
    for name in ('Runner', 'FlexibleRunner'):
        runner = getattr(module, name, None)
        if runner is not None and runner.__module__ == module.__name__:
            _guard(runner, 'resume', 'resume_safely')


def _guard_inferencers(module):
    _guard(module.BaseInferencer, '_init_model', 'build_without_config')


def _guard(owner, name, function):
    """Lets a function of nat_mm.compat.resuming call a method."""
    from functools import wraps

    method = getattr(owner, name)

    @wraps(method)
    def guarded(self, *arguments, **options):
        if not _is_installed('nat_mm'):
            return method(self, *arguments, **options)
        from nat_mm.compat import resuming

        return getattr(resuming, function)(method, self, *arguments, **options)

    setattr(owner, name, guarded)


def _name_models_for_inferencers(infer):
    load = infer.BaseInferencer._load_model_from_metafile

    def load_model_from_metafile(self, model):
        if _is_installed('nat_mm'):
            from nat_mm.inference import zoo

            if zoo.is_model(model):
                path = zoo.find_config(model)
                return infer.Config.fromfile(path), zoo.published_weights(path)
        return load(self, model)

    infer.BaseInferencer._load_model_from_metafile = load_model_from_metafile


def _build_own_models(hub):
    get_model = hub.get_model

    def get_own_model(cfg_path, pretrained=False, **kwargs):
        if not cfg_path.startswith('nat_mm::') or not _is_installed('nat_mm'):
            return get_model(cfg_path, pretrained, **kwargs)
        from nat_mm.inference.model import RANDOM, load_model

        overrides = {f'model.{name}': value for name, value in kwargs.items()}
        checkpoint = None if pretrained else RANDOM
        model = load_model(cfg_path, checkpoint, device='cpu', overrides=overrides).module
        # As mmengine's: a Runner is not to initialize pretrained weights anew.
        model._is_init = pretrained
        return model.train()

    hub.get_model = get_own_model


def _leave_out_multimodal_models(dependency):
    if _is_installed('nat_mm') and dependency.satisfy_requirement('transformers>=4.56'):
        # As without transformers, where placeholders stand for these models.
        dependency.WITH_MULTIMODAL = False


def _is_installed(package):
    from importlib.util import find_spec

    return find_spec(package) is not None


def _package_folder():
    from importlib.util import find_spec

    return find_spec('nat_mm').submodule_search_locations[0]
