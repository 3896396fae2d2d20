"""Runs ``nat-mm serve`` as ``python tools/serve.py``."""

from nat_mm.commands import serve
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(serve.main)
