"""Runs ``nat-mm export`` as ``python tools/export.py``."""

from nat_mm.commands import export
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(export.main)
