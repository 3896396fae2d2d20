"""Tests nat-mm serve: what it serves where, how it ends, and what it refuses."""

import os
import signal
import socket
import sys
import threading
import time

import httpx
import pytest

from nat_mm.commands import serve
from nat_mm.errors import UserError
from nat_mm.inference.model import Model
from tests.processes import free_port
from tests.serving.conftest import CONFIGS, png

MODEL = [str(CONFIGS / 'demo/upernet_nat_demo.py'), 'none', '--device', 'cpu']


@pytest.fixture
def port():
    return free_port()


def test_only_this_computer_is_served_by_default():
    assert serve.parse_arguments(MODEL).host == '127.0.0.1'


def test_command_answers_what_has_arrived_when_it_is_told_to_end(port, capsys, monkeypatch):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    answers, begun = [], threading.Event()
    infer = Model.infer

    def slow(model, frames):
        begun.set()
        time.sleep(0.5)
        return infer(model, frames)

    def end_it():
        begun.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    def ask():
        deadline = time.monotonic() + 60
        before = handlers[signal.SIGTERM]
        while signal.getsignal(signal.SIGTERM) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        answer = httpx.post(f'http://127.0.0.1:{port}/predict', content=png(), timeout=60)
        answers.append(answer.status_code)

    monkeypatch.setattr(Model, 'infer', slow)
    threads = [threading.Thread(target=target) for target in (ask, end_it)]
    for thread in threads:
        thread.start()
    try:
        with pytest.raises(SystemExit) as ended:
            serve.main([*MODEL, '--port', str(port)])
    finally:
        for thread in threads:
            thread.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 128 + signal.SIGTERM
    assert answers == [200]
    assert capsys.readouterr().out.endswith(f'http://127.0.0.1:{port}/docs (Ctrl-C to stop)\n')


def test_closed_output(start, monkeypatch):
    monkeypatch.setattr(sys, 'stdout', None)
    assert start().get('/health').status_code == 200


def test_config_whose_name_is_not_utf8(port, tmp_path, monkeypatch):
    def refuse(model, limits, *, name):
        raise UserError(name)

    monkeypatch.setattr('nat_mm.serving.app.build_app', refuse)
    config = tmp_path / 'caf\udce9.py'
    config.write_text(f"_base_ = '{MODEL[0]}'\n")
    with pytest.raises(UserError, match=r'^caf\\udce9$'):
        serve.main([str(config), *MODEL[1:], '--port', str(port)])


def test_port_in_use(port):
    with (
        socket.create_server(('127.0.0.1', port)),
        pytest.raises(UserError, match=f'cannot listen on 127.0.0.1, port {port}'),
    ):
        serve.main([*MODEL, '--port', str(port)])


@pytest.mark.parametrize('host', ['no.such.host.invalid', 'ü..x', 'ü' * 70, '\udcff'])
def test_host_of_no_computer(host):
    with pytest.raises(UserError, match=f'cannot listen on {host}, port 8000: '):
        serve.main([*MODEL, '--host', host])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--host', ''], 'the host to listen on is empty; 0.0.0.0 opens the port to the network'),
        (['--port', '0'], '--port must be from 1 to 65535, got 0'),
        (['--device', 'gpu'], '--device gpu is unknown or not available'),
        (['--batch-size', '0'], '--batch-size must be at least 1, got 0'),
        (['--queue', '0'], '--queue must be at least 1, got 0'),
        (['--max-wait', '-1'], '--max-wait must be from 0 to 10000, got -1'),
        (['--timeout', '0'], '--timeout must be above 0, got 0'),
        (['--max-megabytes', 'nan'], '--max-megabytes must be above 0, got nan'),
        (['--max-megapixels', 'inf'], '--max-megapixels must be above 0, got inf'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        serve.main([*MODEL, *options])


def test_without_its_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fastapi', None)
    with pytest.raises(UserError, match=r"fastapi is not installed: pip install 'nat_mm\[serve\]'"):
        serve.main(MODEL)
