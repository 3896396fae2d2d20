"""Runs ``nat-mm visualize-saliency`` as ``python tools/visualize_saliency.py``."""

from nat_mm.commands import visualize_saliency
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(visualize_saliency.main)
