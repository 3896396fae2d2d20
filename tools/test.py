"""Runs ``nat-mm test`` as ``python tools/test.py``."""

from nat_mm.commands import test
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(test.main)
