"""Joins the detector's and the segmentor's images of `nat-mm demo` into docs/demo.png.

python docs/demo_image.py [WORK_DIR]

docs/attention.png is a figure of tools/visualize_attention.py, for two points; docs/web_demo.png a
screenshot of tools/web_demo.py, 1280 x 800, with the second scene and a click on its ring.
"""

import sys
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).with_name('demo.png')
WIDTH = 1000


def main(work_dir: Path) -> None:
    names = ('detector.png', 'segmenter.png')
    images = [Image.open(work_dir / 'pictures' / name).convert('RGB') for name in names]
    images = [image.resize((WIDTH, round(image.height * WIDTH / image.width))) for image in images]
    joined = Image.new('RGB', (WIDTH, sum(image.height for image in images)), 'white')
    top = 0
    for image in images:
        joined.paste(image, (0, top))
        top += image.height
    joined.save(TARGET, optimize=True)


if __name__ == '__main__':
    main(Path(sys.argv[1] if len(sys.argv) > 1 else 'work_dirs/demo'))
