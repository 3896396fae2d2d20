"""Runs ``nat-mm check`` as ``python tools/check.py``."""

from nat_mm.commands import check
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(check.main)
