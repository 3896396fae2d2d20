"""Tests that clients other than our page get nothing but a refusal in words."""

import re
import socket
from pathlib import Path
from types import SimpleNamespace

import cv2
import gradio as gr
import numpy as np
import pytest
from fastapi.routing import APIRoute
from gradio.routes import App

from nat_mm.web.uploads import shown_name

DETECTOR, SEGMENTOR = 'mask_rcnn_nat_demo', 'upernet_nat_demo'
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
PNG = cv2.imencode('.png', IMAGE)[1].tobytes()
FILE = {'meta': {'_type': 'gradio.FileData'}}

NAMES = {
    'traversal': '../canary',
    'deep traversal': '../../../../../../../../etc/hostname',
    'own folder': '.',
    'parent': '..',
    'absolute': '/etc/hostname',
    'backslashes': '..\\..\\canary',
    'empty': '',
    'space': ' ',
    'long': 'a' * 10_000,
    'null': 'a\0b',
    'newline': 'a\nb',
    'unicode': 'ä☃𝄞\u202e',
    'percent': '%2e%2e%2fcanary',
    'surrogate': '\ud800',
}
NO_NAMES = {'none': None, 'number': 3, 'bool': True, 'list': ['a'], 'object': {'a': 'b'}}


@pytest.fixture
def folder(server):
    """The server's temporary folder, in which only findings may come and go."""
    folder = server.handlers.served.parent
    for name in list(server.handlers.uploads._uploads):
        server.handlers.uploads.remove(name)
    (folder / 'canary').write_text('sings')
    (folder / 'served/canary').write_text('sings')
    kept = {'canary', 'uploads', 'served', 'served/canary', 'served/examples'}
    yield folder
    for name in ('canary', 'served/canary'):
        assert (folder / name).read_text() == 'sings'
        (folder / name).unlink()
    assert len(list((folder / 'served/examples').iterdir())) == 6
    left = {str(path.relative_to(folder)) for path in (*folder.iterdir(), *folder.glob('*/*'))}
    assert all(len(Path(name).name) == 32 for name in left - kept), left


@pytest.fixture
def elsewhere():
    """Another server, which nothing may make ours contact."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(0)
        yield SimpleNamespace(address=f'http://127.0.0.1:{server.getsockname()[1]}/a.png')
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize('session', [*NAMES.values(), *NO_NAMES.values()], ids=[*NAMES, *NO_NAMES])
def test_session_that_is_no_name(session, client, folder):
    told = client.join('model', 'input', SEGMENTOR, session_hash=session)
    assert told.status_code == 400
    assert 'letters and digits' in told.json()['detail']
    if isinstance(session, str) and session != '\ud800':
        asked = client.http.get('gradio_api/queue/data', params={'session_hash': session})
        assert asked.status_code == 400
        if '\0' not in session and '\n' not in session:
            path = f'gradio_api/heartbeat/{session}'
            assert client.http.get(path).status_code in (400, 404)


@pytest.mark.parametrize('session', ['a', '0-Z', 'a' * 64], ids=['short', 'signs', 'long'])
def test_session_names_no_folder(session, client, server, folder):
    client.session = session
    client.show(PNG, model=SEGMENTOR)
    assert session not in {path.name for path in folder.rglob('*')}
    server.handlers.visitors.leave(session)


@pytest.mark.parametrize('name', NAMES.values(), ids=NAMES)
def test_name_of_a_file_is_shown_and_nothing_else(name, client, server, folder):
    """A browser may send one name with the file's content and another one with the event."""
    sent = client.upload(PNG, name.encode(errors='replace').decode() or 'x')
    if name == NAMES['long']:
        assert (sent.status_code, sent.text) == (400, 'This is not multipart/form-data.')
        sent = client.upload(PNG)
    (path,) = sent.json()
    file = {**FILE, 'path': path, 'orig_name': name}
    shown = shown_name(name)
    (*_, status, _, files, _, _, _), _ = client.tell('upload', 'upload', file, SEGMENTOR, 0.3)
    assert len(shown) <= 100
    assert not {'/', '\\', '\0', '\n'} & set(shown)
    assert f'<strong>{shown}</strong>' in status
    paths = [Path(file['path']).relative_to(folder / 'served') for file in files]
    assert [path.name for path in paths] == ['image_found.png', 'image.png', 'classes.json']
    assert all(re.fullmatch('[0-9a-f]{32}', path.parts[0]) for path in paths)
    names = [f'{Path(shown).stem}_found.png', f'{Path(shown).stem}.png', 'classes.json']
    assert [file['orig_name'] for file in files] == names
    assert not list((folder / 'uploads').iterdir())
    server.handlers.visitors.leave(client.session)


def test_name_of_a_file_is_no_html(client):
    (_, _, _, status, *_), _ = client.show(PNG, '<b onclick="x()">.png')
    assert '&lt;b onclick=&quot;x()&quot;&gt;.png' in status
    _, told = client.show(b'no image', '<b>.png')
    assert told[0].startswith('&lt;b&gt;.png is not an image')


def test_file_that_the_visitor_did_not_send(client, server, folder, elsewhere):
    client.show(PNG)
    found = next((folder / 'served').glob('*/image_found.png'))
    paths = [
        *NAMES.values(),
        *NO_NAMES.values(),
        str(folder / 'canary'),
        str(server.handlers.examples[0]),
        str(found),
        elsewhere.address,
    ]
    for path in [*paths, *(f'{folder}/uploads/{path}' for path in paths)]:
        file = {**FILE, 'path': path, 'url': elsewhere.address, 'is_stream': True}
        told = client.join('upload', 'upload', file, DETECTOR, 0.3)
        assert told.status_code in (400, 410), path
        assert told.json()['detail']
    assert found.exists()
    server.handlers.visitors.leave(client.session)


def test_file_is_read_once(client):
    (path,) = client.upload(PNG).json()
    file = {**FILE, 'path': path, 'orig_name': 'disc.png'}
    client.tell('upload', 'upload', file, SEGMENTOR, 0.3)
    told = client.join('upload', 'upload', file, DETECTOR, 0.3)
    assert (told.status_code, 'drop it again' in told.text) == (410, True)


ODD = {
    'none': None,
    'text': 'no',
    'bool': True,
    'negative': -1,
    'large': 10**9,
    'block of another stage': '0.0',
}


@pytest.mark.parametrize('value', ODD.values(), ids=ODD)
def test_choice_that_is_not_offered_counts_as_none(value, client):
    """The visitor sees the same as without the choice."""
    client.show(PNG, model=SEGMENTOR)
    client.tell('threshold', 'change', 0.5)  # what is drawn already is not drawn again
    (_, status, _, _), _ = client.tell('threshold', 'change', value)
    assert '96 × 64 pixels' in status
    (*_, usual), _ = client.click(300, 200, '2', '2.1', '2.mean')
    for event in (
        client.click(300, 200, value, value, value),
        client.tell('block', 'input', value, value, value),
    ):
        assert event[0][-1] == usual
    offered, _ = client.tell('stage', 'input', value, value)
    assert [update['value'] for update in offered] == ['2.1', '2.mean']
    offered, _ = client.tell('model', 'input', value)
    assert [update['value'] for update in offered[3:]] == ['2', '2.1', '2.mean']


def test_threshold_that_is_not_offered_counts_as_the_usual_one(client):
    client.show(PNG, model=DETECTOR)
    for threshold in (*ODD.values(), 0.04, 1.01):
        client.tell('threshold', 'change', 0.5)
        (_, _, legend, _), _ = client.tell('threshold', 'change', threshold)
        assert legend == 'No object has a score of at least 0.30.', threshold


def test_model_that_is_not_offered_counts_as_the_first(client):
    (*_, legend, _, _, _, _), _ = client.show(PNG, model='gone')
    assert legend == 'No object has a score of at least 0.30.'


@pytest.mark.parametrize('index', [*ODD.values(), [1, 2], [], 6, 1.5], ids=repr)
def test_example_that_there_is_not(index, client):
    outputs, _ = client.tell('examples', 'select', DETECTOR, 0.3, event_data={'index': index})
    assert all('value' not in update for update in outputs)


NO_POINTS = [*ODD.values(), [], [1], ['a', 'b'], [None, 1], [True, 2]]


@pytest.mark.parametrize('index', NO_POINTS, ids=repr)
def test_click_on_no_point(index, client):
    client.show(PNG, model=SEGMENTOR)
    outputs, _ = client.tell('image', 'select', *[None] * 3, event_data={'index': index})
    assert all('value' not in update for update in outputs)


@pytest.mark.parametrize(
    ('index', 'token'),
    [([-5, -(10**15)], (0, 0)), ([10**15, 10**15], (15, 23)), ([768, 512], (15, 23))],
    ids=['negative', 'beyond', 'at the end'],
)
def test_click_outside_means_the_nearest_token(index, token, client):
    client.show(PNG, model=SEGMENTOR)
    (*_, caption), _ = client.click(*index, '0', '0.0', '0.mean')
    assert 'row {}, column {}:'.format(*token) in caption


EVENTS = {
    'no JSON': b'{',
    'nothing': b'',
    'a list': b'[]',
    'a number': b'3',
    'no event': b'{}',
    'bad unicode': b'"\xff"',
    'not a number': b'{"fn_index": NaN}',
    'deep': b'[' * 15_000,
    'large': b' ' * 17_000,
}


@pytest.mark.parametrize('event', EVENTS.values(), ids=EVENTS)
def test_event_that_is_none(event, client):
    told = client.http.post('gradio_api/queue/join', content=event)
    assert told.status_code in (400, 413)
    assert told.json()['detail']


@pytest.mark.parametrize(
    'said',
    [
        {'fn_index': 99},
        {'fn_index': -1},
        {'fn_index': '0'},
        {'fn_index': None},
        {'fn_index': [0]},
        {'data': []},
        {'data': ['a', 'b', 'c']},
        {'data': 'a'},
        {'data': None},
        {'data': {'a': 1}},
        {'data': [{'a': 1}]},
        {'data': [['a']]},
        {'data': ['a' * 301]},
        {'data': [10**20]},
        {'event_data': 'a'},
        {'event_data': {'index': {}}},
        {'event_data': {'index': [[1], 2]}},
        {'event_data': {'index': [1, 2, 3]}},
        {'event_data': {'index': [0.5, 1e300]}},
    ],
    ids=str,
)
def test_event_of_another_page(said, client):
    told = client.join('model', 'input', SEGMENTOR, **said)
    detail = 'This is not an event of this page.'
    assert (told.status_code, told.json()) == (400, {'detail': detail})


@pytest.mark.parametrize(
    'said',
    [
        {'trigger_id': 99},
        {'trigger_id': 'a'},
        {'batched': True},
        {'simple_format': True},
        {'event_id': '../canary'},
        {'oauth_token': 'a'},
        {'request': {'path': '/etc/hostname'}},
    ],
    ids=str,
)
def test_what_else_is_said_of_an_event_does_not_matter(said, client):
    offered, _ = client.tell('model', 'input', SEGMENTOR, **said)
    assert len(offered) == 6


def test_a_handler_for_gradio_alone(client, server):
    client.show(PNG)
    config = client.http.get('config').json()
    unload = [
        event['id']
        for event in config['dependencies']
        if 'unload' in [kind for _, kind in event['targets']]
    ]
    assert len(unload) == 1
    told = client.join('model', 'input', fn_index=unload[0])
    assert told.status_code == 400
    assert server.handlers.visitors.find(client.session)


OPEN = {
    *('/', '/config', '/theme.css', '/favicon.ico'),
    *('/assets/{path:path}', '/static/{path:path}', '/svelte/{path:path}'),
    *('/gradio_api/heartbeat/{session_hash}', '/gradio_api/upload_progress'),
}
FILLED = {
    'path:path': 'a',
    'url_path:path': 'http://127.0.0.1/',
    'path_or_url:path': '/etc/hostname',
}


def test_routes_of_gradio_that_the_page_does_without(client):
    """All of Gradio's other routes are refused, including those of future versions."""
    routes = [
        (method, route.path)
        for route in _routes(App.create_app(gr.Blocks()))
        for method in sorted(route.methods)
        if route.path not in OPEN
    ]
    assert len(routes) > 50
    for method, path in routes:
        filled = path
        for name, value in FILLED.items():
            filled = filled.replace(f'{{{name}}}', value)
        response = client.http.request(method, filled.replace('{', 'a').replace('}', 'a'))
        assert response.status_code in (400, 404), (method, path)


def _routes(app):
    for route in app.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, 'original_router'):
            yield from _routes(route.original_router)


PATHS = [
    '/etc/hostname',
    '{folder}/canary',
    '{folder}/served/../canary',
    '{folder}/served/%2e%2e/canary',
    '{folder}/served',
    '{folder}/uploads/{upload}',
    '{folder}/served/examples/nothing.png',
    'file://{folder}/canary',
    'canary',
    '',
    'a%00b',
    'a' * 10_000,
]


def test_files_that_are_not_served(client, folder, elsewhere):
    (upload,) = client.upload(PNG).json()
    for path in (*PATHS, elsewhere.address):
        for prefix in ('gradio_api/file=', 'gradio_api/file/', 'assets/', 'static/'):
            address = prefix + path.format(folder=folder, upload=upload)
            response = client.http.get(address)
            assert response.status_code == 404, address
            assert 'sings' not in response.text
    client.http.get(f'gradio_api/file={folder}/served/examples/scene_1.png').raise_for_status()
    assert (folder / 'uploads' / upload).exists()


def test_link_out_of_the_served_folder(client, folder):
    link = folder / 'served' / ('a' * 32)
    link.symlink_to(folder / 'canary')
    assert client.http.get(f'gradio_api/file={link}').status_code == 404
    link.unlink()


@pytest.mark.parametrize('path', ['queue/join', 'upload'])
def test_another_page_in_the_same_browser(path, client, folder):
    answer = client.http.post(f'gradio_api/{path}', headers={'Sec-Fetch-Site': 'cross-site'})
    assert (answer.status_code, 'another page' in answer.text) == (403, True)


def test_ranges_of_files(client):
    """Ranges are ignored; Gradio's answer to the last two would be a traceback."""
    file = client.show(PNG, model=SEGMENTOR)[0][2]
    for requested in (b'bytes=0-9', b'bytes=\xb2-\xb3', b'bytes=9-1'):
        answer = client.http.get(file['url'], headers={b'Range': requested})
        assert (answer.status_code, len(answer.content)) == (200, file['size']), requested
        assert answer.headers['content-type'] == 'image/png'


def test_file_that_goes_while_it_is_served(client, server):
    """A visitor may redraw while their browser still loads the previous drawing."""
    path = server.handlers.served / ('a' * 32)
    path.write_bytes(bytes(20_000_000))
    with client.http.stream('GET', f'gradio_api/file={path}') as answer:
        path.unlink()
        assert len(answer.read()) == 20_000_000


def test_addresses_that_a_client_makes_up_stay_with_it(client, server):
    """What a client says about a proxy does not affect the page of the next one."""
    headers = {'X-Forwarded-Host': 'elsewhere.example', 'Host': 'elsewhere.example'}
    for path in ('', 'config', 'theme.css'):
        client.http.get(path, headers=headers)
        assert 'elsewhere' not in client.http.get(path).text
