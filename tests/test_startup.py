"""Waiting for a child process that serves HTTP."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.ports import free_port
from agent.startup import NotUp, wait_until_up

SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    looks = 0
    def do_GET(self):
        Handler.looks += 1
        self.send_response(200 if Handler.looks > int(sys.argv[2]) else 503)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextmanager
def child(code: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_process_is_up_once_it_says_200() -> None:
    port = free_port()
    with child(SERVE, str(port), "3") as process:
        wait_until_up(process, f"http://127.0.0.1:{port}/", 30)


def test_one_that_ended_is_not_waited_for() -> None:
    began = time.monotonic()
    with child("raise SystemExit(3)") as process, pytest.raises(NotUp, match=r"^ended with status 3 while starting$"):
        wait_until_up(process, f"http://127.0.0.1:{free_port()}/", 30)
    assert time.monotonic() - began < 15


def test_one_that_goes_on_saying_that_it_is_not_ready_is_left_running() -> None:
    port = free_port()
    with child(SERVE, str(port), "1000000") as process:
        with pytest.raises(NotUp, match=r"^did not answer within 1 s$"):
            wait_until_up(process, f"http://127.0.0.1:{port}/", 1)
        assert process.poll() is None
