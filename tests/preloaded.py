"""Imports what processes need that :mod:`tests.processes` forks.

The garbage collector leaves that alone from then on: else each fork goes through it, and copies the
memory for that.
"""

import gc
import sys
from contextlib import suppress
from importlib import import_module

# mmengine before nat_mm, as in the commands of mmdet and mmseg.
IMPORTED = ('mmengine.runner', 'nat_mm.commands.train', 'mmdet.apis', 'mmseg.apis', 'pytest')

gc.disable()
sys.modules['transformers'] = None  # mmdet imports it where it is installed; it takes seconds
for name in IMPORTED:
    with suppress(ImportError):
        import_module(name)
del sys.modules['transformers']
gc.freeze()
gc.enable()
