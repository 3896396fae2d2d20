"""Draws docs/attention.png and docs/web_demo.png with the models that `nat-mm demo` trained.

python docs/demo_figures.py [WORK_DIR]

Both show the second scene, with a token on its ring. Playwright takes the screenshot of the page in
Chromium.
"""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from nat_mm.commands import visualize_attention
from nat_mm.commands.demo import SEGMENTOR
from nat_mm.training.resume import find_last_checkpoint

DOCS = Path(__file__).parent
TOKENS = ('30,60', '122,68')
SIZE = {'width': 1280, 'height': 800}


def draw_attention(work_dir: Path) -> None:
    """Draws windows and receptive fields of a token on the star and of one on the ring."""
    checkpoint, _ = find_last_checkpoint(str(work_dir / SEGMENTOR.name))
    image = work_dir / 'data/images/val/00001.jpg'
    points = [argument for point in TOKENS for argument in ('--point', point)]
    with TemporaryDirectory() as folder:
        visualize_attention.main(
            [str(SEGMENTOR.config), checkpoint, str(image), *points]
            + ['--stage', '1', '--out-dir', folder]
        )
        (figure,) = Path(folder).glob('*.png')
        Image.open(figure).convert('RGB').save(DOCS / 'attention.png', optimize=True)


def photograph_page(work_dir: Path) -> None:
    """Takes a screenshot of the page after choosing the second scene and clicking its ring."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'nat_mm', 'web-demo', '--port', str(port)]
    server = subprocess.Popen([*command, '--work-dir', str(work_dir)], stdout=subprocess.PIPE)
    try:
        while b'http://' not in server.stdout.readline():
            if server.poll() is not None:
                raise RuntimeError('nat-mm web-demo has ended')
        with sync_playwright() as playwright, TemporaryDirectory() as folder:
            browser = playwright.chromium.launch(
                executable_path=shutil.which('chromium'), args=['--no-sandbox']
            )
            page = browser.new_page(viewport=SIZE)
            page.goto(f'http://127.0.0.1:{port}')
            show_token(page)
            photograph = Path(folder, 'page.png')
            page.screenshot(path=photograph)
            # 256 colors take a third of the space.
            image = Image.open(photograph).convert('RGB').quantize(256, dither=Image.Dither.NONE)
            image.save(DOCS / 'web_demo.png', optimize=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def show_token(page: Page) -> None:
    """Shows the attention of a token on the ring of the second scene."""
    page.locator('#examples button').nth(1).click()
    image = page.locator('#image img')
    image.wait_for()
    page.get_by_text('pixels · model').first.wait_for()
    box = image.bounding_box()
    image.click(position={'x': 0.78 * box['width'], 'y': 0.59 * box['height']})
    page.get_by_text('Token in row').wait_for()
    page.wait_for_timeout(1000)


if __name__ == '__main__':
    work_dir = Path(sys.argv[1] if len(sys.argv) > 1 else 'work_dirs/demo')
    draw_attention(work_dir)
    photograph_page(work_dir)
