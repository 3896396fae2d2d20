"""Runs ``nat-mm convert-checkpoint`` as ``python tools/convert_checkpoint.py``."""

from nat_mm.commands import convert_checkpoint
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(convert_checkpoint.main)
