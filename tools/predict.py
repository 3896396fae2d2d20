"""Runs ``nat-mm predict`` as ``python tools/predict.py``."""

from nat_mm.commands import predict
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(predict.main)
