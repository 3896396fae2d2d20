"""Runs ``nat-mm browse-dataset`` as ``python tools/browse_dataset.py``."""

from nat_mm.commands import browse_dataset
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(browse_dataset.main)
