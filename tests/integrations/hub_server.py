"""A stand-in for the Hugging Face Hub with as much interface as downloads and uploads need."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = 'hf_stand_in'


class StandIn(ThreadingHTTPServer):
    """Serves repositories of files.

    Attributes:
        repositories: Files by path, by revision, by ``owner/name``.
        private: Repositories that are visible only with the token.
        gated: Repositories that are visible to everyone but readable only with the token.
        requests: Method, path and token of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_port}'

    def add(self, repository, files, revision='main'):
        self.repositories.setdefault(repository, {}).setdefault(revision, {}).update(files)


@contextmanager
def stand_in():
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self._note()
        if found := re.fullmatch(r'/api/models/([^/]+/[^/]+)/tree/([^/]+)', path):
            if (files := self._files(found[1], unquote(found[2]))) is not None:
                tree = [
                    {'type': 'file', 'path': name, 'size': len(content), 'oid': _hash(content)}
                    for name, content in files.items()
                ]
                self._send(tree)
        elif found := re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', path):
            self._send_file(found[1], unquote(found[2]), unquote(found[3]))
        else:
            self._refuse(404, None)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        path = self._note()
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if path == '/api/validate-yaml':
            self._send({'errors': [], 'warnings': []})
        elif self._token() != TOKEN:
            self._refuse(401, None)
        elif path == '/api/repos/create':
            wanted = json.loads(body)
            name = f'{wanted["organization"]}/{wanted["name"]}'
            self.server.add(name, {})
            if wanted.get('visibility') == 'private' or wanted.get('private'):
                self.server.private.add(name)
            self._send({'url': f'{self.server.url}/{name}', 'name': name})
        elif found := re.fullmatch(r'/api/models/([^/]+/[^/]+)/branch/([^/]+)', path):
            self.server.add(found[1], {}, unquote(found[2]))
            self._send({})
        elif re.fullmatch(r'/api/models/[^/]+/[^/]+/preupload/[^/]+', path):
            files = json.loads(body)['files']
            modes = [
                {'path': each['path'], 'uploadMode': 'regular', 'shouldIgnore': False}
                for each in files
            ]
            self._send({'files': modes})
        elif found := re.fullmatch(r'/api/models/([^/]+/[^/]+)/commit/([^/]+)', path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line['value']['path']: base64.b64decode(line['value']['content'])
                for line in lines
                if line['key'] == 'file'
            }
            self.server.add(found[1], files, unquote(found[2]))
            commit = _commit(self.server.repositories[found[1]][unquote(found[2])])
            self._send({'commitUrl': f'{self.server.url}/{found[1]}', 'commitOid': commit})
        else:
            self._refuse(404, None)

    def log_message(self, *_):
        pass

    def _note(self):
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path, self._token()))
        return path

    def _token(self):
        return (self.headers.get('Authorization') or '').removeprefix('Bearer ') or None

    def _files(self, repository, revision):
        """Returns the files of a revision, or refuses the request with a reason."""
        revisions = self.server.repositories.get(repository)
        hidden = repository in self.server.private and self._token() != TOKEN
        if revisions is None or hidden:
            return self._refuse(401, 'RepoNotFound')
        by_commit = {_commit(files): files for files in revisions.values()}
        files = revisions.get(revision, by_commit.get(revision))
        return self._refuse(404, 'RevisionNotFound') if files is None else files

    def _send_file(self, repository, revision, name):
        files = self._files(repository, revision)
        if files is None:
            return
        if repository in self.server.gated and self._token() != TOKEN:
            self._refuse(403, 'GatedRepo')
        elif name not in files:
            self._refuse(404, 'EntryNotFound')
        else:
            content = files[name]
            headers = {'ETag': f'"{_hash(content)}"', 'X-Repo-Commit': _commit(files)}
            self._answer(200, content, 'application/octet-stream', headers)

    def _send(self, value):
        self._answer(200, json.dumps(value).encode(), 'application/json', {})

    def _refuse(self, status, code):
        headers = {'X-Error-Code': code, 'X-Error-Message': code} if code else {}
        self._answer(status, b'{}', 'application/json', headers)

    def _answer(self, status, content, kind, headers):
        self.send_response(status)
        for name, value in {'Content-Type': kind, **headers}.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(content)


def _hash(content):
    return hashlib.sha1(content).hexdigest()


def _commit(files):
    return _hash(repr(sorted((name, _hash(content)) for name, content in files.items())).encode())
