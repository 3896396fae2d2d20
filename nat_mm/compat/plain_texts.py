"""mmengine draws class names as formulas, and boxes instead of many characters.

It draws with Matplotlib, which renders text between dollar signs as a formula and fails if it is
not valid; Matplotlib's own font has no Chinese, Japanese or Korean characters.
"""

import functools
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.12'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.visualization.visualizer',)


def repair(module: ModuleType) -> None:
    """Makes Visualizer draw texts literally.

    Args:
        module: ``mmengine.visualization.visualizer``.
    """
    draw = module.Visualizer.draw_texts

    @functools.wraps(draw)
    def draw_texts(self, *args: Any, **kwargs: Any) -> Any:
        # Imported here because matplotlib's fonts take a while to import.
        from nat_mm.fonts import write_plainly

        before = len(self.ax_save.texts)
        result = draw(self, *args, **kwargs)
        write_plainly(*self.ax_save.texts[before:])
        return result

    module.Visualizer.draw_texts = draw_texts
