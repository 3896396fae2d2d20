"""Runs ``nat-mm analyze`` as ``python tools/analyze.py``."""

from nat_mm.commands import analyze
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(analyze.main)
