"""What the gateway takes and gives, where nothing is wrong with vLLM, which is a stand-in here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from agent.gateway import Gateway
from store.database import Log
from tests.faulty_vllm import FaultyVllm, one_stand_in

ASK = [{"role": "user", "content": "Is it?"}]
BODY: dict[str, Any] = {"model": "policy", "messages": ASK, "max_tokens": 8}
Served = tuple[str, Gateway, Log, FaultyVllm]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with one_stand_in(tmp_path, request_timeout_s=2) as running:
        yield running


def ask(address: str, path: str = "/sessions/s", headers: Any = None, **changes: Any) -> httpx.Response:
    return httpx.post(f"{address}{path}/v1/chat/completions", json=BODY | changes, headers=headers, timeout=30)


def steps(log: Log, columns: str) -> list[tuple[Any, ...]]:
    with log.lookup() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT {columns} FROM step ORDER BY id")]


@pytest.mark.parametrize("stream", [False, True])
def test_any_printable_name_comes_back_in_the_header(served: Served, stream: bool) -> None:
    address, _, log, _ = served
    name = "Łódź 50%"
    answer = ask(address, f"/sessions/{quote(name)}", stream=stream)
    assert answer.status_code == 200
    again = ask(address, "", {"X-Checkloop-Session": answer.headers["x-checkloop-session"]}, stream=stream)
    assert again.headers["x-checkloop-session"] == answer.headers["x-checkloop-session"] == quote(name)
    assert steps(log, "trajectory_id") == [(name,), (name,)]


def test_a_stream_that_is_asked_for_again_after_its_deadline_is_no_fork(served: Served) -> None:
    address, _, log, vllm = served
    vllm.pause_s, vllm.tokens = 0.3, 400
    assert '"timeout"' in ask(address, stream=True, max_tokens=400).text
    vllm.pause_s, vllm.tokens = 0.0, 4
    assert ask(address).status_code == 200
    assert ask(address).status_code == 200
    assert [(reason, bool(forked)) for reason, forked in steps(log, "untrainable_reason, forked")] == [
        ("cancelled", False),
        (None, False),
        (None, True),
    ]


def test_pages_of_the_web_change_no_versions(served: Served) -> None:
    address, *_ = served
    page = {"Origin": "https://evil.example"}
    rebound = {"Host": "evil.example:8080"}
    for headers in (page, rebound):
        for path in ("/admin/promote/v0001", "/admin/stage/v0001", "/admin/split?share=0"):
            answer = httpx.post(f"{address}{path}", headers=headers, timeout=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_request")
        assert httpx.get(f"{address}/admin/versions", headers=headers, timeout=5).status_code == 403
    assert httpx.post(f"{address}/admin/promote/v0001", timeout=30).status_code == 200


def test_the_ipv6_loopback_address_is_served(tmp_path: Path) -> None:
    with one_stand_in(tmp_path, host="::1") as (address, *_):
        assert address.startswith("http://[::1]:") and ask(address).status_code == 200
        assert json.loads(httpx.post(f"{address}/admin/promote/v0001", timeout=30).text)["accepted"]
