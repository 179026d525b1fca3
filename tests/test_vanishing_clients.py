"""Clients that hang up, trickle, or ask twice at once: whose place is kept, what is recorded. vLLM is a stand-in."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.gateway import Gateway
from store.database import Log
from store.incidents import incident_counts
from store.vocabulary import IncidentKind
from tests.faulty_vllm import FaultyVllm, one_stand_in

BODY: dict[str, Any] = {"model": "policy", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 8}
Start = Callable[..., tuple[str, Gateway, Log, FaultyVllm]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(**gateway settings): (address, gateway, log, stand-in)."""
    with ExitStack() as stack:
        yield lambda **gateway: stack.enter_context(one_stand_in(tmp_path, **gateway))


def chat(address: str, **changes: Any) -> httpx.Response:
    return httpx.post(f"{address}/sessions/s/v1/chat/completions", json=BODY | changes, timeout=30)


def test_clients_that_hang_up_before_their_stream_begins_leave_their_place(start: Start) -> None:
    address, gateway, log, vllm = start(max_in_flight=1, max_waiting=3)
    vllm.pause_s = 2.0  # a place that nobody leaves is kept so long, by one after the other

    def hang_up(n: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            body = BODY | {"stream": True}
            httpx.post(f"{address}/sessions/gone-{n}/v1/chat/completions", json=body, timeout=0.4)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hang_up, range(4)))
    deadline = time.monotonic() + 3
    while (gateway.admission.in_flight or gateway.admission.waiting) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (gateway.admission.in_flight, gateway.admission.waiting) == (0, 0)
    assert incident_counts(log)[IncidentKind.CANCELLED] >= 1
    vllm.pause_s = 0.0
    assert chat(address, stream=True).text.endswith("data: [DONE]\n\n")


def test_a_body_that_trickles_in_holds_its_connection_no_longer_than_a_request_may_take(start: Start) -> None:
    address, *_ = start(request_timeout_s=0.5)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as link:
        link.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 400\r\n\r\n{{".encode())
        came = b""
        while part := link.recv(4096):
            came += part
    assert came.startswith(b"HTTP/1.1 408") and b"gateway.request_timeout_s" in came
    assert chat(address).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_all_choices_of_an_answer_are_recorded_though_its_client_goes_while_that_is_done(
    start: Start, tmp_path: Path, stream: bool
) -> None:
    address, gateway, log, _ = start()
    assert chat(address).status_code == 200
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(httpx.ReadTimeout):
        body = BODY | {"n": 3, "stream": stream}
        httpx.post(f"{address}/sessions/many/v1/chat/completions", json=body, timeout=0.5)
    time.sleep(0.2)
    blocker.execute("ROLLBACK")
    blocker.close()
    deadline = time.monotonic() + 5
    while gateway.admission.in_flight and time.monotonic() < deadline:
        time.sleep(0.02)
    with log.lookup() as connection:
        steps = connection.exec_driver_sql("SELECT trainable, forked FROM step WHERE trajectory_id = 'many'").all()
    assert [tuple(map(bool, step)) for step in steps] == [(True, False)] * 3


def test_of_two_first_requests_of_a_session_at_once_one_is_a_fork(start: Start) -> None:
    address, _, log, vllm = start()
    vllm.pause_s = 0.1
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: chat(address), range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    with log.lookup() as connection:
        forks = connection.exec_driver_sql("SELECT forked FROM step WHERE parent_id IS NULL").scalars().all()
    assert sorted(map(bool, forks)) == [False, True]
