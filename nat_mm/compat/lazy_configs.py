"""mmengine's configs in pure Python take parts of the standard library for lazy objects.

It decides by the folder of a module's file whether to import it at once. Since Python 3.11 ``os``
and others are frozen and have no file, and in a virtual environment no module of the standard
library lies where it looks: ``os.path.join('data', 'train')`` in a config is a RuntimeError.
"""

import functools
import inspect
import sys
from types import ModuleType

# OneDL's fork knows frozen modules, and where a virtual environment's standard library lies.
BROKEN_IN = {'mmengine': '<0.10.12'}
UPSTREAM = 'https://github.com/open-compass/opencompass/issues/767'
MODULES = ('mmengine.config.utils', 'mmengine.config.config')


def repair(module: ModuleType) -> None:
    """Makes mmengine import every module of the standard library at once.

    Args:
        module: ``mmengine.config.utils``, or ``mmengine.config.config``, which has the function
            from it.
    """
    is_builtin = inspect.unwrap(module._is_builtin_module)

    @functools.wraps(is_builtin)
    def is_builtin_module(module_name: str) -> bool:
        return module_name.split('.')[0] in sys.stdlib_module_names or is_builtin(module_name)

    module._is_builtin_module = is_builtin_module
