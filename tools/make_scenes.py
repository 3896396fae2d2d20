"""Runs ``nat-mm make-scenes`` as ``python tools/make_scenes.py``."""

from nat_mm.commands import make_scenes
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(make_scenes.main)
