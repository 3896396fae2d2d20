"""Runs ``nat-mm demo`` as ``python tools/demo.py``."""

from nat_mm.commands import demo
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(demo.main)
