"""Generates a dataset, then trains, tests and draws a NAT detector and a NAT segmentor.

Both are trained from scratch, on a GPU if there is one.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from rich.console import Console
from rich.table import Table

from nat_mm.analysis.training_logs import read_log
from nat_mm.commands.running import exit_on_signals
from nat_mm.demo import DatasetOptions, write_dataset
from nat_mm.demo.drawings import draw_curves, draw_predictions
from nat_mm.demo.runs import CONFIGS, Run, run_side_by_side
from nat_mm.errors import UserError
from nat_mm.files import write_bytes

MARKER = '.nat_mm_demo'


@dataclass(frozen=True, eq=False)
class Task:
    """A model of the demo.

    Attributes:
        name: its name and that of its folder.
        metrics: key in mmengine's logs -> name in the table.
        unit: value of a perfect result in the logs, 1 or 100 (percent).
    """

    name: str
    metrics: dict[str, str]
    unit: float


DETECTOR = Task(
    name='detector',
    metrics={'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50'},
    unit=1,
)
SEGMENTOR = Task(
    name='segmentor',
    metrics={'mIoU': 'mIoU'},
    unit=100,
)
TASKS = (DETECTOR, SEGMENTOR)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'), help='default: %(default)s'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of data and training; default: 0')
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision (bf16 on a CPU)'
    )
    parser.add_argument(
        '--quick', action='store_true', help='run every step in about a minute, learning nothing'
    )
    return parser.parse_args()


def prepare_work_dir(work_dir: Path) -> None:
    """Removes the results of an earlier demo, except its data; refuses folders with other files."""
    if work_dir.exists() and not work_dir.is_dir():
        raise UserError(f'{work_dir} is a file, not a folder')
    if work_dir.exists() and any(work_dir.iterdir()) and not (work_dir / MARKER).is_file():
        raise UserError(
            f'{work_dir} is not empty and was not written by the demo: choose another --work-dir'
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / MARKER).touch()
    for folder in (*(task.name for task in TASKS), 'images'):
        shutil.rmtree(work_dir / folder, ignore_errors=True)
        (work_dir / folder).mkdir()
    (work_dir / 'metrics.json').unlink(missing_ok=True)


def command(name: str, task: Task, arguments: argparse.Namespace, *more: str) -> tuple[str, ...]:
    """Returns the command line of `nat-mm train` or `nat-mm test`."""
    overrides = [f'randomness.seed={arguments.seed}']
    if arguments.quick:
        overrides += [
            'train_cfg.max_iters=4',
            'train_cfg.val_interval=2',
            'default_hooks.logger.interval=1',
            'train_dataloader.batch_size=2',
        ]
    program = (sys.executable, '-m', 'nat_mm', name)
    return (*program, str(CONFIGS[task.name]), *more, '--cfg-options', *overrides)


def train(arguments: argparse.Namespace) -> dict[Task, Path]:
    """Trains all tasks at the same time; returns their last checkpoints."""
    folders = {task: arguments.work_dir / task.name for task in TASKS}
    precision = ['--amp'] if arguments.amp else []
    run_side_by_side(
        [
            Run(
                name=task.name,
                arguments=command('train', task, arguments, '--work-dir', str(folder), *precision),
                output=folder / 'train.txt',
            )
            for task, folder in folders.items()
        ]
    )
    return {task: Path(find_latest_checkpoint(str(folder))) for task, folder in folders.items()}


def test(checkpoints: dict[Task, Path], arguments: argparse.Namespace) -> dict[str, float]:
    """Tests the checkpoints at the same time; returns the metrics, from 0 to 1."""
    folders = {task: arguments.work_dir / task.name / 'test' for task in TASKS}
    for folder in folders.values():
        folder.mkdir()
    run_side_by_side(
        [
            Run(
                name=task.name,
                arguments=command(
                    'test', task, arguments, str(checkpoint), '--work-dir', str(folders[task])
                ),
                output=folders[task] / 'test.txt',
            )
            for task, checkpoint in checkpoints.items()
        ]
    )
    results = {}
    for task, folder in folders.items():
        (log,) = folder.glob('*/*.json')
        logged = json.loads(log.read_text().splitlines()[-1])
        results.update({name: logged[key] / task.unit for key, name in task.metrics.items()})
    return results


def draw(checkpoints: dict[Task, Path], work_dir: Path) -> list[Path]:
    """Draws predictions and training curves; returns the files."""
    folder = work_dir / 'images'
    images = []
    for task, checkpoint in checkpoints.items():
        images.append(folder / f'{task.name}.png')
        draw_predictions(Config.fromfile(CONFIGS[task.name]), checkpoint, images[-1])
    images.append(folder / 'curves.png')
    curves = {
        task.name: (read_log(work_dir / task.name), task.metrics, task.unit) for task in TASKS
    }
    draw_curves(curves, images[-1])
    return images


def main() -> None:
    arguments = parse_arguments()
    exit_on_signals()
    started = time.monotonic()
    try:
        sizes = {'train_scenes': 8, 'val_scenes': 4} if arguments.quick else {}
        options = DatasetOptions(seed=arguments.seed, **sizes)
        prepare_work_dir(arguments.work_dir)
        data = arguments.work_dir / 'data'
        write_dataset(data, options, overwrite=True)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error
    # The configs read this variable to find the data.
    os.environ['NAT_MM_DEMO_DATA'] = str(data)

    checkpoints = train(arguments)
    results = test(checkpoints, arguments)
    images = draw(checkpoints, arguments.work_dir)

    results['minutes'] = (time.monotonic() - started) / 60
    metrics = json.dumps(results, indent=2) + '\n'
    write_bytes(arguments.work_dir / 'metrics.json', metrics.encode())
    table = Table('result', 'value')
    for name, value in results.items():
        table.add_row(name, f'{value:.1f}' if name == 'minutes' else f'{value:.3f}')
    Console().print(table)
    for image in images:
        print(image)
