"""Tests that the Python which starts at once also ends at once."""

import multiprocessing
import time

from tests.warm_python import warm


def test_server_ends_before_processes_that_inherited_its_input(tmp_path):
    server = tmp_path / 'server'
    server.write_text('#!/bin/sh\necho ready\nexec cat\n')  # ends with its input, as the real one
    server.chmod(0o755)
    with warm(server, tmp_path, {}):
        heir = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        heir.start()
    assert heir.is_alive()
    heir.kill()
    heir.join()
