"""Measures the memory that ``nat-mm predict`` takes with and without tiles, for docs/tools.md.

python docs/tile_memory.py CONFIG CHECKPOINT IMAGE WIDTH HEIGHT [options of nat-mm predict]

The image is repeated until it fills WIDTH x HEIGHT pixels. Each prediction runs in its own process.
"""

import os
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np


def main() -> None:
    config, checkpoint, image, width, height, *options = sys.argv[1:]
    small = cv2.imread(image)
    repeats = -(-int(height) // small.shape[0]), -(-int(width) // small.shape[1]), 1
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, 'large.png')
        cv2.imwrite(str(large), np.tile(small, repeats)[: int(height), : int(width)])
        command = [sys.executable, '-m', 'nat_mm', 'predict', config, checkpoint, str(large)]
        for tiles in (['--tile', '1024', '--overlap', '128'], []):
            arguments = [*command, *tiles, '--out-dir', f'{folder}/out', *options]
            process = os.spawnv(os.P_NOWAIT, sys.executable, arguments)
            _, status, usage = os.wait4(process, 0)
            kind, code = ' '.join(tiles) or 'whole image', os.waitstatus_to_exitcode(status)
            # Linux reports KiB.
            memory, seconds = usage.ru_maxrss / 2**20, usage.ru_utime
            print(f'{kind}: exit code {code}, {memory:.1f} GiB, {seconds:.0f} s', flush=True)


if __name__ == '__main__':
    main()
