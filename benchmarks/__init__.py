"""The parts of ``python -m benchmarks``: one file per section, timing, tables and plot."""
