"""Formats a config's text once; mmengine does so five times before a run's first iteration."""

import functools
from types import ModuleType
from typing import Any

REMEMBERED = 4  # number of texts


def format_once(config_module: ModuleType) -> None:
    """Caches the texts that ``mmengine.config.config`` formats with yapf, half a second each."""
    # OneDL's fork imports the function locally.
    format_code = getattr(config_module, 'FormatCode', None)
    if format_code is None:
        return
    results = {}

    @functools.wraps(format_code)
    def formatted(text: str, **options: Any) -> tuple[str, bool]:
        key = text, repr(options)
        if key not in results:
            if len(results) == REMEMBERED:
                del results[next(iter(results))]
            results[key] = format_code(text, **options)
        return results[key]

    config_module.FormatCode = formatted
