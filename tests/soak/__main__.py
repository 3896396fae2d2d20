"""Trains the small detector and the small segmentor, kills the runs, and counts what was lost."""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from tests.commands.conftest import write_configs
from tests.conftest import write_small_data
from tests.soak.kills import Soak

BY_EPOCH = {'detection': True, 'segmentation': False}


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m tests.soak', description=__doc__)
    parser.add_argument('--kills', type=int, default=50, help='of each model')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument(
        '--mmengine-alone', action='store_true', help='without the repair, to see what is lost'
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='soak_'))
    (folder / 'data').mkdir()
    write_small_data(folder / 'data')
    lost = 0
    for task, config in write_configs(folder, folder / 'data').items():
        started = time.monotonic()
        soak = Soak(
            config,
            by_epoch=BY_EPOCH[task],
            folder=folder / task,
            seed=arguments.seed,
            mended=not arguments.mmengine_alone,
        )
        result = soak.run(arguments.kills)
        lost += len(result.lost)
        for fault in result.lost:
            print(f'  {fault}')
        print(
            f'{task}: lost: {len(result.lost)} of {result.kills} '
            f'({result.writing} kills while a checkpoint was written, '
            f'{result.finished} runs finished, {time.monotonic() - started:.0f} s)',
            flush=True,
        )
    if lost:
        raise SystemExit(f'the logs are in {folder}')
    shutil.rmtree(folder)


if __name__ == '__main__':
    main()
