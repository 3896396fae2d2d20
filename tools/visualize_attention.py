"""Runs ``nat-mm visualize-attention`` as ``python tools/visualize_attention.py``."""

from nat_mm.commands import visualize_attention
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(visualize_attention.main)
