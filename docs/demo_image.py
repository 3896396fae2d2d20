"""Draws docs/demo.png: predictions of the models of `nat-mm demo` for four scenes.

python docs/demo_image.py [WORK_DIR]

docs/demo_figures.py draws the other two figures of the same models.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from PIL import Image

from nat_mm.commands.demo import TASKS
from nat_mm.demo.drawings import draw_predictions
from nat_mm.training.resume import find_last_checkpoint

TARGET = Path(__file__).with_name('demo.png')
WIDTH = 1000
SCENES = 4


def main(work_dir: Path) -> None:
    images = []
    for task in TASKS:
        checkpoint, _ = find_last_checkpoint(str(work_dir / task.name))
        with TemporaryDirectory() as folder:
            drawn = Path(folder, f'{task.name}.png')
            draw_predictions(Config.fromfile(task.config), Path(checkpoint), drawn, count=SCENES)
            image = Image.open(drawn).convert('RGB')
        images.append(image.resize((WIDTH, round(image.height * WIDTH / image.width))))
    joined = Image.new('RGB', (WIDTH, sum(image.height for image in images)), 'white')
    top = 0
    for image in images:
        joined.paste(image, (0, top))
        top += image.height
    joined.save(TARGET, optimize=True)


if __name__ == '__main__':
    main(Path(sys.argv[1] if len(sys.argv) > 1 else 'work_dirs/demo'))
