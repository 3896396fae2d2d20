"""mmengine's pure Python configs mistake parts of the standard library for lazy objects.

mmengine decides by the folder of a module's file whether to import it immediately. Since Python
3.11, ``os`` and other modules are frozen and have no file, and in a virtual environment no module
of the standard library is where mmengine looks: ``os.path.join('data', 'train')`` in a config
raises a RuntimeError.
"""

import functools
import inspect
import sys
from types import ModuleType

# OneDL's fork handles frozen modules and the standard library of virtual environments.
BROKEN_IN = {'mmengine': '<0.10.12'}
UPSTREAM = 'https://github.com/open-compass/opencompass/issues/767'
MODULES = ('mmengine.config.utils', 'mmengine.config.config')


def repair(module: ModuleType) -> None:
    """Makes mmengine import all modules of the standard library immediately.

    Args:
        module: ``mmengine.config.utils``, or ``mmengine.config.config``, which imports the function
            from there.
    """
    is_builtin = inspect.unwrap(module._is_builtin_module)

    @functools.wraps(is_builtin)
    def is_builtin_module(module_name: str) -> bool:
        return module_name.split('.')[0] in sys.stdlib_module_names or is_builtin(module_name)

    module._is_builtin_module = is_builtin_module
