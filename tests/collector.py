"""Spares the garbage collector what commands import, millions of objects.

mmengine lets it collect for every dataset that it builds. Import the hook in the conftest.py of
tests that build datasets.
"""

import gc
import sys

known_modules = 0


def pytest_runtest_setup() -> None:
    """Freezes what is there once tests have imported hundreds of modules."""
    global known_modules
    if len(sys.modules) > known_modules + 200:
        gc.collect()
        gc.freeze()
        known_modules = len(sys.modules)
