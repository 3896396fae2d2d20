"""Tests the page in a real browser: drop, click, slider, downloads, two visitors at once."""

import json
import re
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import FilePayload, Page, expect

from nat_mm.analysis.drawing import TOKEN_COLOR
from nat_mm.web import guard, uploads
from nat_mm.web.bounds import FILE_MEGABYTES

DETECTOR, SEGMENTOR, CLASSIFIER = 'mask_rcnn_nat_demo', 'upernet_nat_demo', 'classifier'
HEIGHT, WIDTH = 96, 128
ENLARGEMENT = 6


@pytest.fixture
def image() -> np.ndarray:
    """A bright disc on a dark, slightly noisy background."""
    image = np.random.default_rng(0).integers(40, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return cv2.circle(image, (40, 40), 25, (60, 90, 230), -1)


def drop(page: Page, file: FilePayload | Path) -> None:
    clear = page.locator('#upload').get_by_label('Clear')
    if clear.count():
        clear.click()
    page.locator('#upload input[type=file]').set_input_files(file)


def drop_image(page: Page, image: np.ndarray, name: str) -> None:
    content = cv2.imencode('.png', image)[1].tobytes()
    drop(page, FilePayload(name=name, mimeType='image/png', buffer=content))


def show(page: Page, image: np.ndarray) -> None:
    """Drops an image and waits for its results."""
    drop_image(page, image, 'disc.png')
    expect(page.locator('#status')).to_contain_text('disc.png')


def shown(page: Page, selector: str) -> np.ndarray:
    """Returns the image that is shown, as the browser received it."""
    address = page.locator(f'{selector} img').get_attribute('src')
    return cv2.imdecode(np.frombuffer(page.request.get(address).body(), np.uint8), 1)


def download(page: Page, name: str) -> bytes:
    # The page shows a file's name and its suffix separately.
    stem, suffix = name.split('.')
    row = page.locator('#files tr', has_text=re.compile(rf'^\s*{stem}\s*\.{suffix}'))
    with page.expect_download() as started:
        row.locator('a').click()
    return Path(started.value.path()).read_bytes()


def choose(page: Page, selector: str, option: str) -> None:
    page.locator(f'{selector} input').click()
    page.locator(selector).get_by_role('option', name=option, exact=True).click()


def click(page: Page, x: float, y: float) -> None:
    """Clicks on the image at fractions of its width and height."""
    # The browser does not know the image's size before it has loaded it.
    page.wait_for_function('document.querySelector("#image img").naturalWidth > 0')
    box = page.locator('#image img').bounding_box()
    scale = min(box['width'] / WIDTH, box['height'] / HEIGHT)
    left = (box['width'] - WIDTH * scale) / 2
    top = (box['height'] - HEIGHT * scale) / 2
    position = {'x': left + x * WIDTH * scale, 'y': top + y * HEIGHT * scale}
    page.locator('#image img').click(position=position)


def enlarged(image: np.ndarray) -> np.ndarray:
    size = (WIDTH * ENLARGEMENT, HEIGHT * ENLARGEMENT)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def is_plain(drawn: np.ndarray, image: np.ndarray) -> bool:
    """Returns whether nothing is drawn into an image."""
    difference = np.abs(drawn.astype(int) - enlarged(image))
    return difference.mean() < 1


def test_start(page, server, port, connections):
    expect(page.locator('.hint >> visible=true')).to_contain_text('Drop an image')
    assert page.locator('#examples img').count() == 6
    assert not page.locator('#image').is_visible()
    html = page.request.get(server.local_url)
    assert 'https://' not in html.text().split('window.gradio_config')[0]
    assert "default-src 'self'" in html.headers['content-security-policy']
    page.locator('#examples button').nth(1).click()
    expect(page.locator('#status')).to_contain_text('scene_2.png')
    assert shown(page, '#image').shape == (768, 768, 3)
    socket.create_connection(('127.0.0.1', port)).close()
    assert {address[0] for address in connections} == {'127.0.0.1'}


def test_slider_redraws_without_the_model(page, image, models, monkeypatch):
    runs = []
    detector = models[DETECTOR]
    infer = detector.infer
    monkeypatch.setattr(detector, 'infer', lambda images: runs.append(1) or infer(images))
    show(page, image)
    # The untrained model gives all classes about the same score.
    expect(page.locator('#legend')).to_contain_text('No object has a score of at least 0.30')
    assert is_plain(shown(page, '#image'), image)
    address = page.locator('#image img').get_attribute('src')

    page.locator('#threshold input[type=range]').press('Home')
    expect(page.locator('#legend li').first).to_be_visible()
    expect(page.locator('#image img')).not_to_have_attribute('src', address)
    assert not is_plain(shown(page, '#image'), image)
    many = json.loads(download(page, 'disc.json'))
    assert (many['image'], many['height'], many['width']) == ('disc.png', HEIGHT, WIDTH)
    counts = page.locator('#legend .note').all_inner_texts()
    assert sum(map(int, counts)) == len(many['instances']) > 0

    page.locator('#threshold input[type=range]').press('End')
    expect(page.locator('#legend')).to_contain_text('at least 1.00')
    assert json.loads(download(page, 'disc.json'))['instances'] == []
    assert is_plain(shown(page, '#image'), image)
    assert len(runs) == 1


def test_segmentor_sees_the_image_of_the_detector(page, image):
    show(page, image)
    click(page, 0.3, 0.4)
    expect(page.locator('#attention')).to_be_visible()
    choose(page, '#model', SEGMENTOR)
    expect(page.locator('#threshold')).not_to_be_visible()
    expect(page.locator('#attention')).not_to_be_visible()
    classes = json.loads(download(page, 'classes.json'))
    labels = cv2.imdecode(np.frombuffer(download(page, 'disc.png'), np.uint8), -1)
    assert labels.shape == (HEIGHT, WIDTH)
    shares = [f'{(labels == label).mean():.1%}' for label in np.unique(labels)]
    names = [classes[label] for label in np.unique(labels)]
    assert sorted(page.locator('#legend .note').all_inner_texts()) == sorted(shares)
    assert sorted(page.locator('#legend .name').all_inner_texts()) == sorted(names)
    drawn = cv2.imdecode(np.frombuffer(download(page, 'disc_found.png'), np.uint8), 1)
    assert not is_plain(drawn, image)


def test_classifier(page, image):
    pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')
    choose(page, '#model', CLASSIFIER)
    show(page, image)
    found = json.loads(download(page, 'disc.json'))['classes']
    assert len(found) == 3
    names = page.locator('#legend .name').all_inner_texts()
    assert names == [entry['class_name'] for entry in found]
    assert 'cat <b>' in names
    assert page.locator('#legend .note').first.inner_text() == f'{found[0]["score"]:.1%}'


@pytest.mark.parametrize(
    ('model', 'map_height'), [(DETECTOR, WIDTH), (SEGMENTOR, HEIGHT)], ids=['resizes', 'does not']
)
def test_click_shows_the_window_of_the_token(model, map_height, page, image):
    """The token's outline is where the click was, and the image is dark outside the window."""
    choose(page, '#model', model)
    show(page, image)
    for stage, (x, y) in ((0, (0.3, 0.4)), (0, (0.99, 0.99)), (2, (0.3, 0.4))):
        stride = 4 * 2**stage
        choose(page, '#stage', f'{stage} ({stride} px)')
        click(page, x, y)
        row, column = int(y * map_height // stride), int(x * WIDTH // stride)
        expect(page.locator('#caption')).to_contain_text(f'row {row}, column {column}:')
        drawn = shown(page, '#attention')
        assert drawn.shape == (HEIGHT * ENLARGEMENT, WIDTH * ENLARGEMENT, 3)
        across, down = stride * ENLARGEMENT, stride * ENLARGEMENT * HEIGHT // map_height
        # One pixel inside its cell, as lines are two pixels thick.
        top = drawn[row * down + 1, column * across + 1 : (column + 1) * across - 1]
        assert (top == TOKEN_COLOR).all()
        if stage == 0:
            first_row = min(max(row - 3, 0), map_height // stride - 7)
            first_column = min(max(column - 3, 0), WIDTH // stride - 7)
            outside = np.ones(drawn.shape[:2], bool)
            outside[
                first_row * down : (first_row + 7) * down,
                first_column * across : (first_column + 7) * across,
            ] = False
            shade = drawn[outside].mean() / enlarged(image)[outside].mean()
            assert shade == pytest.approx(0.55, abs=0.02)
    caption = page.locator('#caption')
    for selector, option in (('#head', '3'), ('#block', '0')):
        before = caption.inner_text()
        choose(page, selector, option)
        expect(caption).not_to_have_text(before)


def test_click_overtakes_the_choice_of_a_stage(page, image):
    """A click on a stage with one block comes while the page still sends another one's block 1."""
    choose(page, '#model', SEGMENTOR)
    show(page, image)
    late = []

    def hold(route):
        is_choice = route.request.post_data_json['data'] == [SEGMENTOR, '0']
        late.append(route) if is_choice else route.continue_()

    page.route('**/queue/join*', hold)
    choose(page, '#stage', '0 (4 px)')
    click(page, 0.3, 0.4)
    expect(page.locator('#caption')).to_contain_text('row 9, column 9:')
    caption = page.locator('#caption').inner_text()
    block = page.locator('#block input').input_value()
    late[0].continue_()
    assert block == '1'
    expect(page.locator('#block input')).to_have_value('0')
    expect(page.locator('#caption')).to_have_text(caption)


def test_files_that_are_not_taken(page, image, tmp_path):
    """The page says so in a friendly way, and an earlier result stays."""
    show(page, image)
    address = page.locator('#image img').get_attribute('src')
    (tmp_path / 'fake.png').write_text('no image')
    (tmp_path / 'large.png').write_bytes(bytes(FILE_MEGABYTES * 10**6 + 1))
    for name, message in (
        ('fake.png', 'fake.png is not an image that can be read here'),
        ('large.png', 'maximum allowed size'),
    ):
        drop(page, tmp_path / name)
        expect(page.get_by_test_id('toast-body').filter(has_text=message)).to_be_visible()
        assert page.locator('#image img').get_attribute('src') == address
        expect(page.locator('#status')).to_contain_text('disc.png')


def test_visitor_whose_image_was_dropped(page, image, server):
    show(page, image)
    server.handlers.visitors._dropped.update(dict.fromkeys(server.handlers.visitors._visits))
    click(page, 0.3, 0.4)
    toast = page.get_by_test_id('toast-body').filter(has_text='is no longer kept here')
    expect(toast).to_be_visible()
    drop_image(page, image, 'again.png')
    expect(page.locator('#status')).to_contain_text('again.png')


def test_crowd(page, image, monkeypatch):
    """The page says so in a friendly way."""
    monkeypatch.setattr(uploads, 'WAITING_MEGABYTES', 0)
    drop_image(page, image, 'disc.png')
    toasts = page.get_by_test_id('toast-body')
    expect(toasts.filter(has_text='Too many files are waiting for a model.')).to_be_visible()
    monkeypatch.setattr(guard, 'QUEUE_LENGTH', 0)
    page.locator('#examples button').first.click()
    expect(toasts.filter(has_text='currently busy. Please try again.')).to_be_visible()


def test_two_visitors_at_once(visitors, image):
    pages = [visitors.open(), visitors.open()]
    images = [image, image[::-1, ::-1, ::-1].copy()]
    for turn in range(2):
        names = [f'visitor{number}_{turn}.png' for number in range(2)]
        for page, name, each in zip(pages, names, images, strict=True):
            drop_image(page, each, name)
        for page, name, each in zip(pages, names, images, strict=True):
            expect(page.locator('#status')).to_contain_text(name)
            assert is_plain(shown(page, '#image'), each)
            assert json.loads(download(page, name.replace('png', 'json')))['image'] == name
        images.reverse()
    pages[0].locator('#threshold input[type=range]').press('Home')
    expect(pages[0].locator('#legend li').first).to_be_visible()
    expect(pages[1].locator('#legend')).to_contain_text('at least 0.30')
    click(pages[1], 0.3, 0.4)
    expect(pages[1].locator('#attention img')).to_be_visible()
    assert not pages[0].locator('#attention').is_visible()


def test_known_classes(page):
    known = page.locator('#known')
    expect(known.locator('summary')).to_have_text('MaskRCNN of mmdet, knows 6 classes')
    choose(page, '#model', CLASSIFIER)
    expect(known.locator('summary')).to_have_text('ImageClassifier of mmpretrain, knows 3 classes')
    known.locator('summary').click()
    assert known.locator('li').all_inner_texts() == ['cat <b>', 'dog', 'fish']
    assert known.locator('.swatch').count() == 0


def test_phone(visitors, image):
    """Nothing is wider than the screen, and nothing overlaps."""
    page = visitors.open(width=360, height=740)
    choose(page, '#model', SEGMENTOR)
    show(page, image)
    click(page, 0.3, 0.4)
    expect(page.locator('#attention img')).to_be_visible()
    page.locator('#known summary').click()
    assert page.evaluate('document.documentElement.scrollWidth') == 360
    parts = ['#model', '#known', '#upload', '#examples', '#image', '#status', '#legend', '#files']
    parts += ['#attention', '#stage', '#block', '#caption']
    boxes = [page.locator(part).bounding_box() for part in parts]
    for part, box, following in zip(parts, boxes, [*boxes[1:], None], strict=True):
        assert 0 <= box['x'] < box['x'] + box['width'] <= 360, part
        assert following is None or box['y'] + box['height'] <= following['y'] + 1, part


def test_screenshot(page, image):
    """Everything is in view at 1280 x 800, and nothing overlaps."""
    show(page, image)
    page.locator('#threshold input[type=range]').press('Home')
    expect(page.locator('#legend li').first).to_be_visible()
    click(page, 0.3, 0.4)
    expect(page.locator('#attention img')).to_be_visible()
    parts = ('#model', '#upload', '#examples', '#threshold', '#image', '#status', '#legend')
    parts += ('#attention', '#stage', '#caption')
    boxes = [page.locator(part).bounding_box() for part in parts]
    for part, box in zip(parts, boxes, strict=True):
        assert 0 <= box['x'] < box['x'] + box['width'] <= 1280, part
        assert 0 <= box['y'] < box['y'] + box['height'] <= 800, part
    screenshot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), 1)
    taken = np.zeros((800, 1280), int)
    for box in boxes:
        rows = slice(round(box['y']) + 1, round(box['y'] + box['height']) - 1)
        columns = slice(round(box['x']) + 1, round(box['x'] + box['width']) - 1)
        taken[rows, columns] += 1
        # Something is drawn in each box.
        assert screenshot[rows, columns].std() > 1
    assert taken.max() == 1
