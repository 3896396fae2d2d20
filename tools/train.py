"""Runs ``nat-mm train`` as ``python tools/train.py``."""

from nat_mm.commands import train
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(train.main)
