"""Tests many clients at once, slow ones, and ones that want more than their share."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import cv2
import h11
import httpx
import numpy as np
import pytest

from nat_mm.inference.loading import ImageLoader
from nat_mm.serving import connections, intake
from nat_mm.serving.app import build_app
from nat_mm.serving.intake import Limits
from nat_mm.serving.running import listen, local_address, served
from tests.serving.conftest import png
from tests.web.clients import SlowClient, wait_until

PNG = png()
HEADER = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n'


def waiting(client):
    return client.get('health').json()['waiting']


def port_of(client):
    return client.base_url.port


def labels_in(response):
    return cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(60) as pool:
        yield pool


def test_50_clients_get_each_their_own_result_beside_slow_ones(start, models, held, pool):
    """Each client sends its image twice, in one of two shapes, while ten others never finish."""
    held.go.set()
    client = start(queue=100, batch_size=8, max_wait=0.05)
    slow = [
        SlowClient(port_of(client), HEADER + b'Content-Length: 99999\r\n\r\n') for _ in range(10)
    ]
    files = [png(48, 64 if number % 2 else 80, seed=number) for number in range(50)]

    def ask(number):
        with httpx.Client(base_url=client.base_url, timeout=60, verify=False) as own:
            answers = [
                own.post('predict?output=png', content=files[number]),
                own.post('predict?output=png', files={'file': files[number]}),
            ]
        return [labels_in(answer.raise_for_status()) for answer in answers]

    found = list(pool.map(ask, range(50)))
    asked = list(held.batches)
    for number, answers in enumerate(found):
        image = cv2.imdecode(np.frombuffer(files[number], np.uint8), cv2.IMREAD_COLOR)
        expected = models['segmentation'].predict(image).label_map + 1
        for labels in answers:
            # In a batch, sums may differ in their last bits, and so may classes that tie.
            assert (labels != expected).mean() < 0.01
    assert sum(asked) == 100
    assert max(asked) > 1
    assert max(asked) <= 8
    for each in slow:
        each.close()


def test_only_images_of_one_shape_and_threshold_are_predicted_at_once(start, held, pool):
    client = start(batch_size=4, max_wait=0)
    first = pool.submit(client.post, 'predict', content=PNG)
    assert held.begun.wait(60)
    others = [pool.submit(client.post, 'predict', content=PNG) for _ in range(5)]
    others += [pool.submit(client.post, 'predict', content=png(32, 40)) for _ in range(2)]
    others += [pool.submit(client.post, 'predict?score_threshold=0.5', content=PNG)]
    wait_until(lambda: waiting(client) == 9)
    held.go.set()
    assert [each.result().status_code for each in (first, *others)] == [200] * 9
    assert held.batches[0] == 1
    assert sorted(held.batches[1:]) == [1, 1, 2, 4]


def test_full_queue(start, held, pool):
    client = start(queue=2)
    taken = [pool.submit(client.post, 'predict', content=PNG) for _ in range(2)]
    wait_until(lambda: waiting(client) == 2)
    refused = client.post('predict', content=PNG)
    assert (refused.status_code, refused.headers['retry-after']) == (503, '1')
    assert refused.json() == {
        'detail': 'Too many images are waiting for the model. Please try again.'
    }
    held.go.set()
    assert [each.result().status_code for each in taken] == [200, 200]
    wait_until(lambda: waiting(client) == 0)
    assert client.post('predict', content=PNG).status_code == 200


def test_header_that_takes_long_to_read(start, pool, monkeypatch):
    """The server goes on, and the image counts as waiting; it is patched to block its thread."""
    go, sizes = threading.Event(), []

    def read_size(file):
        sizes.append(file)
        assert go.wait(60)

    client = start(queue=2, timeout=60)
    monkeypatch.setattr(intake, 'image_size', read_size)
    taken = [pool.submit(client.post, 'predict', content=PNG) for _ in range(2)]
    wait_until(lambda: len(sizes) == 2)
    assert client.get('health').json()['waiting'] == 2
    assert client.post('predict', content=PNG).status_code == 503
    assert len(sizes) == 2
    go.set()
    assert [each.result().status_code for each in taken] == [415, 415]
    wait_until(lambda: waiting(client) == 0)


def test_image_whose_header_is_read_for_too_long_is_answered(start, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(intake, 'image_size', lambda file: go.wait(60) and None)
    client = start(timeout=0.3)
    assert client.post('predict', content=PNG).status_code == 504
    go.set()


def test_gif_whose_comments_would_keep_pillow_busy(start):
    comments = b'!\xfe\x01a\x00' * 1_000_000
    gif = b'GIF89a' + bytes([64, 0, 48, 0, 0, 0, 0]) + comments
    answer = start().post('predict', content=gif)
    assert (answer.status_code, 'cannot be used' in answer.json()['detail']) == (422, True)


@pytest.mark.parametrize('bound', ['waiting_megapixels', 'waiting_megabytes'])
def test_images_of_all_clients(bound, start, held, pool):
    size = {'waiting_megapixels': 48 * 64 * 1.5e-6, 'waiting_megabytes': len(PNG) * 1.5e-6}[bound]
    client = start(**{bound: size})
    first = pool.submit(client.post, 'predict', content=PNG)
    assert held.begun.wait(60)
    assert client.post('predict', content=PNG).status_code == 503
    held.go.set()
    assert first.result().status_code == 200
    wait_until(lambda: waiting(client) == 0)
    for _ in range(3):  # nothing is left of the refused requests
        assert client.post('predict', content=PNG).status_code == 200


def test_image_that_takes_too_long(start, held, pool):
    client = start(timeout=0.3, batch_size=1)
    answers = [pool.submit(client.post, 'predict', content=PNG) for _ in range(2)]
    for answer in answers:
        assert answer.result().status_code == 504
        assert answer.result().json() == {'detail': 'Not predicted within 0.3 seconds.'}
    assert waiting(client) == 0
    held.go.set()
    later = []
    while 200 not in later:
        later.append(client.post('predict', content=PNG).status_code)
    # The image whose turn had not come was never predicted.
    assert held.batches[:2] == [1, 1]
    assert len(held.batches) <= 1 + len(later)


def test_client_that_goes_is_not_predicted(start, held, pool):
    client = start(batch_size=1)
    first = pool.submit(client.post, 'predict', content=PNG)
    assert held.begun.wait(60)
    with socket.create_connection(('127.0.0.1', port_of(client))) as other:
        other.sendall(HEADER + b'Content-Length: %d\r\n\r\n' % len(PNG) + PNG)
        wait_until(lambda: waiting(client) == 2)
    wait_until(lambda: waiting(client) == 1)
    held.go.set()
    assert first.result().status_code == 200
    assert client.post('predict', content=PNG).status_code == 200
    assert held.batches == [1, 1]


@pytest.mark.parametrize(
    ('content', 'kind', 'status', 'detail'),
    [
        (b'', 'image/png', 400, 'The image is empty.'),
        (b'no image', 'image/png', 415, 'not an image that can be read here: JPEG, PNG'),
        (PNG[:2000], 'image/png', 422, 'cannot be used: not an image that can be read'),
        (png(2, 2500), 'image/png', 422, 'more than 1000 times the other'),
        (b'{"url": "http://127.0.0.1/a.png"}', 'application/json', 415, 'URLs are not fetched'),
        (b'--', 'multipart/form-data', 400, 'A file is sent as multipart/form-data.'),
        (b'--', 'multipart/form-data; boundary=b', 400, 'One file is sent at a time.'),
        (bytes(120_000), 'image/png', 413, 'more than the 0.1 MB'),
        (png(101, 100), 'image/png', 413, '100 x 101 pixels are more than the 0.01 megapixels'),
    ],
    ids=['empty', 'no image', 'cut', 'thin', 'url', 'no form', 'no part', 'file', 'pixels'],
)
def test_what_is_refused(content, kind, status, detail, start):
    client = start(megabytes=0.1, megapixels=0.01)
    answer = client.post('predict', content=content, headers={'Content-Type': kind})
    assert answer.status_code == status
    assert detail in answer.json()['detail']
    assert client.post('predict', content=PNG).status_code == 200


@pytest.mark.parametrize('declared', [True, False], ids=['declared', 'in chunks'])
def test_body_that_is_too_large(declared, start):
    client = start(megabytes=1)
    body = bytes(30_000_000)
    content = body if declared else (body[i : i + 65536] for i in range(0, len(body), 65536))
    with suppress(httpx.WriteError):  # the server may hang up before the client reads the answer
        assert client.post('predict', content=content).status_code == 413
    assert client.post('predict', content=PNG).status_code == 200


@pytest.mark.parametrize('query', ['score_threshold=2', 'masks=all', 'output=gif'])
def test_wrong_parameter(query, start):
    answer = start().post(f'predict?{query}', content=PNG)
    assert answer.status_code == 422
    assert answer.json()['detail'].startswith(query.partition('=')[0])


def test_page_of_another_site(start):
    headers = {'Sec-Fetch-Site': 'cross-site'}
    assert start().post('predict', content=PNG, headers=headers).status_code == 403


def test_fault_of_the_model_is_told_without_a_traceback(start, models, monkeypatch, faults):
    def fail(frames):
        raise AssertionError('secret')

    client = start()
    monkeypatch.setattr(models['segmentation'], 'infer', fail)
    answer = client.post('predict', content=PNG)
    assert answer.status_code == 500
    assert 'secret' not in answer.text
    assert 'secret' in faults.pop()
    monkeypatch.undo()
    assert client.post('predict', content=PNG).status_code == 200


def test_image_at_fault_does_not_spoil_its_batch(start, models, held, pool, monkeypatch):
    bad = png(48, 64, seed=9)
    infer = held.infer

    def infer_others(frames):
        if any(np.array_equal(frame.image, decoded) for frame in frames):
            infer(frames)
            raise ValueError('too odd')
        return infer(frames)

    decoded = ImageLoader().load_bytes(bad).drawing
    monkeypatch.setattr(models['segmentation'], 'infer', infer_others)
    client = start(max_wait=10, batch_size=3)
    held.go.set()
    answers = [pool.submit(client.post, 'predict', content=each) for each in (PNG, bad, PNG)]
    assert [each.result().status_code for each in answers] == [200, 422, 200]
    assert 'The image cannot be predicted: too odd' in answers[1].result().json()['detail']


@pytest.mark.parametrize('state', [h11.IDLE, h11.SEND_BODY], ids=['header', 'body'])
def test_slow_client_is_hung_up_on(state, start, monkeypatch):
    client = start()
    monkeypatch.setitem(connections._PATIENCE, state, 0.3)
    request = HEADER + (b'Content-Length: 99999\r\n\r\n' if state is h11.SEND_BODY else b'')
    slow = SlowClient(port_of(client), request)
    for _ in range(5):
        time.sleep(0.05)
        slow.send(b'a')
    assert slow.receive() == b''


def test_end_answers_what_has_arrived(models, held, pool, faults):
    with listen('127.0.0.1', 0) as listener, httpx.Client(timeout=60, verify=False) as client:
        app = build_app(models['segmentation'], Limits(), name='small')
        address = local_address(listener)
        with served(app, listener, last_seconds=60):
            answer = pool.submit(client.post, f'{address}predict', content=PNG)
            assert held.begun.wait(60)
            timer = threading.Timer(0.3, held.go.set)
            timer.start()
        assert answer.result().status_code == 200
        timer.join()
