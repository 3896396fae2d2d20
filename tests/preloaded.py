"""Imports what processes need that :mod:`tests.processes` forks."""

import sys

from tests.warm_python import preload

sys.modules['transformers'] = None  # mmdet imports it where it is installed; it takes seconds
# mmengine before nat_mm, as in the commands of mmdet and mmseg.
preload(('mmengine.runner', 'nat_mm.commands.train', 'mmdet.apis', 'mmseg.apis', 'pytest'))
del sys.modules['transformers']
