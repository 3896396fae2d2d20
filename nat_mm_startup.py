"""Installs import hooks that make OpenMMLab's own commands work with nat_mm.

``mim test mmdet``, the inferencers and others import ``mmcv.ops`` before they read the config that
would import nat_mm, so what they need must be available as soon as Python starts. The file
``nat_mm_startup.pth`` in site-packages calls :func:`start`, which imports only the standard library
and merely watches for a few modules:

- ``mmcv._ext``, the compiled operators: served by :mod:`nat_mm.compat.mmcv_ops` if no other finder
  has it (mmcv-lite). A compiled one always takes precedence.
- ``panopticapi``, which mmdet needs for panoptic data: served from :mod:`nat_mm.compat.panopticapi`
  if no other finder has it.
- ``mmengine.config``: finds ``_base_ = 'nat_mm::...'`` in this package's own folder, and other
  packages' bases without reading all of their metafiles;
  ``mmengine.hub`` builds ``nat_mm::...`` models.
- functions that need the repairs in :mod:`nat_mm.compat` but can be called without a config that
  imports nat_mm: nat_mm is imported before a checkpoint is read, a runner resumes, an inferencer
  builds its model or a config inherits from another package, and when mmpretrain is about to import
  its multimodal models.

Set the environment variable ``NAT_MM_NO_STARTUP=1`` to start Python without the hooks; importing
nat_mm itself still installs them.
"""

import os
import sys
from importlib.machinery import ModuleSpec


class _AfterImport:
    """Finder that calls functions on a module right after the module is executed."""

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
    """Finder of last resort for ``mmcv._ext``, and its loader."""

    def find_spec(self, name, path=None, target=None):
        if name != 'mmcv._ext' or not _is_installed('nat_mm'):
            return None
        return ModuleSpec(name, self, origin='nat_mm.compat.mmcv_ops')

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        from nat_mm.compat import mmcv_ops

        mmcv_ops.repair(module)


class _MissingPanopticApi:
    """Finder of last resort for ``panopticapi``."""

    def find_spec(self, name, path=None, target=None):
        if name != 'panopticapi' or not _is_installed('nat_mm'):
            return None
        from importlib.util import spec_from_file_location

        folder = os.path.join(_package_folder('nat_mm'), 'compat', name)
        return spec_from_file_location(
            name, os.path.join(folder, '__init__.py'), submodule_search_locations=[folder]
        )


_NEED_NAT_MM = {
    'mmengine.config.config': ('Config._parse_lazy_import',),
    'mmengine.infer.infer': (
        'BaseInferencer._init_model',
        'BaseInferencer._load_model_from_metafile',
    ),
    'mmengine.runner._flexible_runner': ('FlexibleRunner.resume',),
    'mmengine.runner.checkpoint': ('CheckpointLoader.load_checkpoint',),
    'mmengine.runner.runner': ('Runner.resume',),
}
"""Methods, by module, that import nat_mm before they run."""

_after_import = _AfterImport()
_missing_ops = _MissingOps()


def start():
    """Installs the hooks when Python starts, unless ``NAT_MM_NO_STARTUP=1``."""
    if os.environ.get('NAT_MM_NO_STARTUP') != '1':
        install()


def install():
    """Installs the hooks; further calls have no effect."""
    if _missing_ops in sys.meta_path:
        return
    sys.meta_path.insert(0, _after_import)
    sys.meta_path += [_missing_ops, _MissingPanopticApi()]
    when_imported('mmengine.config.utils', _name_own_configs)
    when_imported('mmengine.config.config', _find_own_configs)
    when_imported('mmengine.hub.hub', _build_own_models)
    when_imported('mmpretrain.utils.dependency', _import_before_multimodal_models)
    for name in _NEED_NAT_MM:
        when_imported(name, _import_before_calls)


def when_imported(name, callback):
    """Calls ``callback(module)`` once module ``name`` is imported, immediately if it already is."""
    if name in sys.modules:
        callback(sys.modules[name])
    else:
        _after_import.callbacks.setdefault(name, []).append(callback)


def _name_own_configs(config_utils):
    config_utils.MODULE2PACKAGE.setdefault('nat_mm', 'nat_mm')


def _find_own_configs(config):
    find = config.Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        package, is_packaged, name = cfg_path.partition('::')
        if not is_packaged or not _is_installed('nat_mm'):
            return find(cfg_path, filename)
        path = os.path.join(_package_folder(package), '.mim', 'configs', name)
        if package != 'nat_mm':
            import nat_mm  # noqa: F401

            # For each base, mmengine would first search the package's metafiles, about 100.
            return (path, package) if os.path.isfile(path) else find(cfg_path, filename)
        # mmengine itself would look next to the metadata, where an editable install has no files.
        if not os.path.isfile(path):
            raise FileNotFoundError(f'nat_mm has no config {name!r} ({cfg_path!r} in {filename})')
        # Without a scope, types are looked up in the config's default_scope, mmdet or mmseg;
        # mmengine would use 'nat_mm', which has no registries.
        return path, None

    config.Config._get_cfg_path = staticmethod(get_cfg_path)


def _build_own_models(hub):
    get_model = hub.get_model

    # Programs may keep a reference to this function, so it has to choose at each call.
    def get_own_model(cfg_path, pretrained=False, **kwargs):
        if not cfg_path.startswith('nat_mm::') or not _is_installed('nat_mm'):
            return get_model(cfg_path, pretrained, **kwargs)
        from nat_mm.inference.names import build_for_hub

        return build_for_hub(cfg_path, pretrained, **kwargs)

    hub.get_model = get_own_model


def _import_before_multimodal_models(dependency):
    if dependency.WITH_MULTIMODAL and _is_installed('nat_mm'):
        import nat_mm  # noqa: F401


def _import_before_calls(module):
    for path in _NEED_NAT_MM[module.__name__]:
        class_name, _, name = path.rpartition('.')
        _import_before_call(getattr(module, class_name), name)


def _import_before_call(owner, name):
    """Makes the first call of a function import nat_mm, which replaces the function."""
    from functools import wraps

    function = getattr(owner, name)

    @wraps(function)
    def call(*args, **kwargs):
        if 'nat_mm' in sys.modules or not _is_installed('nat_mm'):
            return function(*args, **kwargs)
        import nat_mm  # noqa: F401

        return getattr(owner, name)(*args, **kwargs)

    needs_no_object = isinstance(vars(owner)[name], (classmethod, staticmethod))
    setattr(owner, name, staticmethod(call) if needs_no_object else call)


def _is_installed(package):
    from importlib.util import find_spec

    return find_spec(package) is not None


def _package_folder(package):
    from importlib.util import find_spec

    spec = find_spec(package) if package.isidentifier() else None
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else ''
