"""``nat-mm export-onnx`` for those who type ``python tools/export_onnx.py``."""

from nat_mm.commands import export_onnx
from nat_mm.commands.running import run_command

if __name__ == '__main__':
    run_command(export_onnx.main)
