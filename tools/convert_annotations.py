"""Runs ``nat-mm convert-annotations`` as ``python tools/convert_annotations.py``."""

from nat_mm.commands import convert_annotations
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(convert_annotations.main)
