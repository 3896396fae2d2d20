"""What ``tools/benchmark.py`` is made of: one file per section, timing, table and plot."""
