"""Runs ``nat-mm get-flops`` as ``python tools/get_flops.py``."""

from nat_mm.commands import get_flops
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(get_flops.main)
