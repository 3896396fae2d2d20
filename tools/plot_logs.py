"""Runs ``nat-mm plot-logs`` as ``python tools/plot_logs.py``."""

from nat_mm.commands import plot_logs
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(plot_logs.main)
