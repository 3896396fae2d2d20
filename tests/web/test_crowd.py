"""Tests many visitors, slow ones, and ones that want more than their share."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import cv2
import gradio as gr
import h11
import numpy as np
import pytest

from nat_mm.serving import connections
from nat_mm.web import guard, uploads, visitors
from tests.web.clients import Client, SlowClient, wait_until

DETECTOR, SEGMENTOR = 'mask_rcnn_nat_demo', 'upernet_nat_demo'
PNG = cv2.imencode('.png', np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
SLOW_HEADER = b'GET / HTTP/1.1\r\nHost: a\r\nX-Slow: '
BODY = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n%b\r\n--b--\r\n'
UPLOAD = (
    b'POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\n'
    b'Content-Type: multipart/form-data; boundary=b\r\n'
)
SLOW_UPLOAD = UPLOAD + b'Content-Length: 5000000\r\n\r\n' + BODY.partition(b'%b')[0]


@pytest.fixture(autouse=True)
def empty(server):
    """Removes everything that is kept for the visitors of other tests."""
    for session in list(server.handlers.visitors._visits):
        server.handlers.visitors.leave(session)
    for name in list(server.handlers.uploads._uploads):
        server.handlers.uploads.remove(name)


def test_idle_page_does_not_keep_a_core_busy(client, monkeypatch):
    client.show(PNG)  # starts Gradio's queue
    pauses, sleep = [], asyncio.sleep

    async def recorded_sleep(seconds: float, *arguments) -> None:
        pauses.append(seconds)
        await sleep(seconds, *arguments)

    monkeypatch.setattr(asyncio, 'sleep', recorded_sleep)
    wait_until(lambda: len(pauses) >= 5)
    assert min(pauses) >= 0.01


def test_visitors_are_served_beside_slow_clients(server, port, faults):
    """This is a short form of 50 visitors and 200 slow clients."""
    slow = [SlowClient(port, SLOW_UPLOAD if i % 2 else SLOW_HEADER) for i in range(50)]
    stop = threading.Event()

    def go_on():
        while not stop.wait(0.2):
            for client in slow:
                client.send(b'a')

    def visit(number):
        with Client(server.local_url) as client:
            outputs, _ = client.show(PNG, f'{number}.png', SEGMENTOR)
            client.http.get(outputs[2]['url']).raise_for_status()
            (*_, caption), _ = client.click(1, 1)
            return outputs[3], caption

    thread = threading.Thread(target=go_on)
    thread.start()
    with ThreadPoolExecutor(12) as executor:
        results = list(executor.map(visit, range(12)))
    stop.set()
    thread.join()
    for number, (status, caption) in enumerate(results):
        assert f'<strong>{number}.png</strong>' in status
        assert 'row 0, column 0:' in caption
    for client in slow:
        client.close()


@pytest.mark.parametrize(
    ('state', 'request_'),
    [(h11.IDLE, b''), (h11.IDLE, SLOW_HEADER), (h11.SEND_BODY, SLOW_UPLOAD)],
    ids=['says nothing', 'slow header', 'slow upload'],
)
def test_client_that_hangs_on_is_hung_up_on(state, request_, server, port, faults, monkeypatch):
    monkeypatch.setitem(connections._PATIENCE, state, 0.3)
    client = SlowClient(port, request_)
    for _ in range(5):
        time.sleep(0.05)
        client.send(b'a')
    assert client.receive() == b''
    wait_until(lambda: not list(server.handlers.uploads.folder.iterdir()))


def test_client_that_reads_nothing_is_hung_up_on(server, port, faults, monkeypatch):
    monkeypatch.setattr(connections, 'WRITE_SECONDS', 0.3)
    path = server.handlers.served / ('a' * 32)
    # More than operating systems buffer.
    path.write_bytes(bytes(30_000_000))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(('127.0.0.1', port))
        client.sendall(f'GET /gradio_api/file={path} HTTP/1.1\r\nHost: a\r\n\r\n'.encode())
        time.sleep(1)
        client.settimeout(30)
        received = 0
        with suppress(ConnectionResetError):
            while content := client.recv(2**20):
                received += len(content)
    assert received < 30_000_000
    path.unlink()


def test_one_connection_too_many_is_told_so(server, port, faults, monkeypatch):
    monkeypatch.setattr(connections, 'CONNECTIONS', 0)
    answer = SlowClient(port, b'').receive()
    assert answer.startswith(b'HTTP/1.1 503 ')
    assert b'Too many people are using this page right now.' in answer


def test_header_that_is_too_long(port, faults):
    client = SlowClient(port, SLOW_HEADER + b'a' * 1_000_000)
    assert client.receive()[:12] in (b'HTTP/1.1 400', b'')


@pytest.mark.parametrize('path', ['heartbeat/abc', 'queue/data?session_hash=abc'])
def test_one_stream_too_many_is_told_so(path, client, server, monkeypatch):
    client.session = 'abc'
    client.join('model', 'input', SEGMENTOR)
    monkeypatch.setattr(guard, 'STREAMS', 0)
    answer = client.http.get(f'gradio_api/{path}')
    assert (answer.status_code, 'Too many people' in answer.text) == (503, True)


def test_event_after_a_result_counts_on_the_stream_of_that_result(client):
    """A page's script does this if it has not yet heard of the end of a stream."""
    client.show(PNG, model=SEGMENTOR)
    lines = client.messages()
    for _ in range(3):
        event = client.join('image', 'select', None, None, None, event_data={'index': [1, 1]})
        ends = (each for each in lines if each.get('msg') in ('process_completed', 'close_stream'))
        end = next(ends)
        assert (end['msg'], end['event_id']) == ('process_completed', event.json()['event_id'])


def test_what_is_drawn_already_is_not_drawn_again(client, server):
    """Such events come late and would remove the image that the visitor clicks on."""
    client.show(PNG, model=SEGMENTOR)
    request = SimpleNamespace(session_hash=client.session)
    handlers = server.handlers
    assert handlers.choose_model(SEGMENTOR, 0.3, request) == gr.skip()
    assert handlers.redraw(0.3, request) == gr.skip()
    assert handlers.redraw(0.4, request) != gr.skip()
    assert handlers.choose_model(DETECTOR, 0.4, request) != gr.skip()


def test_queue_that_is_full(client, monkeypatch):
    monkeypatch.setattr(guard, 'QUEUE_LENGTH', 0)
    answer = client.join('model', 'input', SEGMENTOR)
    assert (answer.status_code, 'Too many people' in answer.text) == (503, True)


def test_visitor_who_fetches_no_results(client):
    for _ in range(guard.EVENTS_PER_VISITOR):
        assert client.join('model', 'input', SEGMENTOR).status_code == 200
    answer = client.join('model', 'input', SEGMENTOR)
    assert (answer.status_code, 'Too many people' in answer.text) == (503, True)
    client.session += '0'
    assert client.join('model', 'input', SEGMENTOR).status_code == 200


@pytest.mark.parametrize('bound', ['VISITORS', 'KEPT_MEGABYTES'])
def test_longest_away_is_dropped_and_told_so(bound, client, server, monkeypatch):
    kept = server.handlers.visitors
    names = ['first', 'second', 'third']
    for name in names:
        client.session = name
        if name == 'third':
            client.session = 'first'
            client.tell('threshold', 'change', 0.3)
            client.session = 'third'
            size = sum(visit.size for visit in kept._visits.values()) / 10**6
            monkeypatch.setattr(visitors, bound, {'VISITORS': 2, 'KEPT_MEGABYTES': size}[bound])
        client.show(PNG, model=SEGMENTOR)
    assert list(kept._visits) == ['first', 'third']
    client.session = 'second'
    for event in (
        client.tell('threshold', 'change', 0.3),
        client.click(1, 1),
        client.tell('head', 'input', None, None, None),
    ):
        outputs, told = event
        assert all('value' not in update for update in outputs)
        assert 'Please drop or choose it again' in told[0]
    (_, _, _, status, *_), told = client.show(PNG, model=SEGMENTOR)
    assert ('disc.png' in status, told) == (True, [])


def test_files_go_with_what_is_kept(client, server):
    served = server.handlers.served
    client.show(PNG, model=SEGMENTOR)
    client.click(1, 1)
    folders = {path.name for path in served.iterdir()} - {'examples'}
    assert len(folders) == 2
    client.tell('threshold', 'change', 0.5)
    client.click(2, 2)
    renewed = {path.name for path in served.iterdir()} - {'examples'}
    assert (len(renewed), renewed & folders) == (2, set())
    # Gradio's page signals that it was left by ending its heartbeat.
    with client.http.stream('GET', f'gradio_api/heartbeat/{client.session}') as response:
        next(response.iter_lines())
    wait_until(lambda: [path.name for path in served.iterdir()] == ['examples'])
    assert server.handlers.visitors.find(client.session) is None


def test_file_that_is_too_large(client, port, server, monkeypatch):
    monkeypatch.setattr(uploads, 'FILE_MEGABYTES', 0.1)
    answer = client.upload(bytes(200_000))
    assert (answer.status_code, answer.text) == (413, 'The file has more than 0.1 MB.')
    assert not list(server.handlers.uploads.folder.iterdir())


@pytest.mark.parametrize('length', ['declared', 'chunked'])
def test_upload_that_is_too_large_is_not_waited_for(length, port, server, monkeypatch, faults):
    monkeypatch.setattr(guard, '_LARGEST_REQUEST', 100_000)
    headers = {
        'declared': b'Content-Length: 30000000\r\n\r\n',
        'chunked': b'Transfer-Encoding: chunked\r\n\r\n%x\r\n' % 30_000_000,
    }
    # All that the server reads: it closes the connection to one that is still sending.
    client = SlowClient(port, UPLOAD + headers[length] + bytes(100_001))
    assert client.receive().startswith(b'HTTP/1.1 413 ')
    assert not list(server.handlers.uploads.folder.iterdir())


def test_uploads_of_all_visitors(client, server, monkeypatch):
    waiting = server.handlers.uploads
    monkeypatch.setattr(uploads, 'WAITING_MEGABYTES', 0.25)
    answers = [client.upload(bytes(100_000)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert 'Too many files are waiting' in answers[2].text
    assert len(list(waiting.folder.iterdir())) == 2
    monkeypatch.setattr(uploads, 'WAITING_SECONDS', 0)
    (name,) = client.upload(bytes(100_000)).json()
    assert [path.name for path in waiting.folder.iterdir()] == [name]


def test_number_of_uploads_of_all_visitors(client, server, monkeypatch):
    monkeypatch.setattr(uploads, 'WAITING_FILES', 2)
    answers = [client.upload(b'a') for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert 'Too many files are waiting' in answers[2].text
    assert len(list(server.handlers.uploads.folder.iterdir())) == 2


@pytest.mark.parametrize(
    ('kind', 'body'),
    [
        ('multipart/form-data; boundary=b', b''),
        ('multipart/form-data; boundary=b', b'no parts'),
        ('multipart/form-data; boundary=b', BODY[:-9] % b'a' + b'\r\n' + BODY % b'a'),
        ('multipart/form-data; boundary=' + 'b' * 1000, BODY % b'a'),
        ('multipart/form-data', BODY % b'a'),
        ('application/json', b'{}'),
        ('', b'a'),
    ],
    ids=['empty', 'no parts', 'two files', 'boundary', 'no boundary', 'JSON', 'nothing'],
)
def test_upload_that_is_none(kind, body, client, server):
    answer = client.http.post('gradio_api/upload', content=body, headers={'Content-Type': kind})
    assert (answer.status_code, bool(answer.text)) == (400, True)
    assert not list(server.handlers.uploads.folder.iterdir())


def test_upload_that_ends_early(port, server, faults):
    folder = server.handlers.uploads.folder
    client = SlowClient(port, SLOW_UPLOAD + bytes(100_000))
    wait_until(lambda: any(path.stat().st_size for path in folder.iterdir()))
    client.close()
    wait_until(lambda: not list(folder.iterdir()))
