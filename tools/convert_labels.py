"""Runs ``nat-mm convert-labels`` as ``python tools/convert_labels.py``."""

from nat_mm.commands import convert_labels
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(convert_labels.main)
