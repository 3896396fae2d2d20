"""Imports what the processes that :mod:`tests.processes` forks need."""

import sys

from tests.warm_python import preload

sys.modules['transformers'] = None  # mmdet imports it if it is installed, which takes seconds
# mmengine comes before nat_mm, as in the commands of mmdet and mmseg.
preload(('mmengine.runner', 'nat_mm.commands.train', 'mmdet.apis', 'mmseg.apis', 'pytest'))
del sys.modules['transformers']
