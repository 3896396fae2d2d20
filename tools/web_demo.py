"""Runs ``nat-mm web-demo`` as ``python tools/web_demo.py``."""

from nat_mm.commands import web_demo
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(web_demo.main)
