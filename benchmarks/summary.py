"""Summarizes the measurements in figures, grouped by meaning."""

from collections.abc import Iterable

MATMUL_FRACTION = "fraction of PyTorch's fp32 matmul rate"
SPEEDUP = 'times as fast'
MEMORY = 'fraction of the memory'
GROWTH = 'time per pixel, largest to smallest image'

Summary = dict[str, dict[str, float]]
"""Group -> name -> figure."""


def merge(summaries: Iterable[Summary]) -> Summary:
    """Joins the groups of several summaries."""
    merged = {}
    for summary in summaries:
        for group, figures in summary.items():
            merged.setdefault(group, {}).update(figures)
    return merged
