"""mmengine takes names of classes for formulas, and draws boxes in place of many characters.

Matplotlib, by which it draws, sets what is between dollars as a formula and fails where that is
none; its own font has no Chinese, Japanese or Korean.
"""

import functools
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.12'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.visualization.visualizer',)


def repair(module: ModuleType) -> None:
    """Makes Visualizer draw texts as they are.

    Args:
        module: ``mmengine.visualization.visualizer``.
    """
    draw = module.Visualizer.draw_texts

    @functools.wraps(draw)
    def draw_texts(self, *args: Any, **kwargs: Any) -> Any:
        # Not at the top: matplotlib's fonts take a while to import.
        from nat_mm.fonts import write_plainly

        before = len(self.ax_save.texts)
        result = draw(self, *args, **kwargs)
        write_plainly(*self.ax_save.texts[before:])
        return result

    module.Visualizer.draw_texts = draw_texts
