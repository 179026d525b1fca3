"""What is sent and what comes back when something is wrong: the client, vLLM, the database, or too many at once.

vLLM is a stand-in here, since the real one cannot be asked to answer garbage; everything before it is real.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.bundled_model import prepare_bundled_model
from agent.gateway import Gateway
from agent.ports import free_ports
from agent.vllm_client import ServerError
from store.database import Log, open_log
from store.incidents import incident_counts
from store.settings import Settings, load_settings
from store.tokens import token_sequences
from store.versions import add_version, set_version_state
from store.vocabulary import IncidentKind, VersionState
from tests.faulty_vllm import FaultyVllm, faulty_servers, gateway_over
from tests.serving import MODEL

ASK = [{"role": "user", "content": "Is it?"}]
BODY: dict[str, Any] = {"model": "policy", "messages": ASK, "max_tokens": 8}
Start = Callable[..., tuple[str, Gateway, Log, list[FaultyVllm]]]


def settings_of(home: Path, urls: list[str], log_url: str = "", **gateway: Any) -> Settings:
    port, server_port = free_ports()
    return load_settings(
        home=home,
        database_url=log_url,
        gateway={"port": port, **gateway},
        server={"port": server_port, "urls": urls, "max_model_len": 512, "start_timeout_s": 5},
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(servers=1, url=…, **gateway settings): (address, gateway, log, stand-ins)."""
    with ExitStack() as stack:

        def run(servers: int = 1, url: str = "", **gateway: Any) -> tuple[str, Gateway, Log, list[FaultyVllm]]:
            stand_ins = stack.enter_context(faulty_servers(servers))
            settings = settings_of(tmp_path, [s.url for s in stand_ins], url, **gateway)
            log = open_log(settings.url)
            stack.callback(log.close)
            add_version(log, "v0001", parent=None, path=str(prepare_bundled_model(MODEL).resolve()), files={})
            set_version_state(log, "v0001", VersionState.LIVE, "first")
            address, running = stack.enter_context(gateway_over(log, settings))
            return address, running, log, stand_ins

        yield run


def chat(address: str, **changes: Any) -> httpx.Response:
    return httpx.post(f"{address}/sessions/s/v1/chat/completions", json=BODY | changes, timeout=30)


def test_what_clients_send_wrong(start: Start) -> None:
    """A table: what was sent, the status that came back, and words of its message."""
    address, _, log, _ = start(max_body_mib=1)
    url = f"{address}/v1/chat/completions"
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    table: list[tuple[bytes | dict[str, Any], int, str]] = [
        (b'{"model": "policy", "messages": [', 400, "JSON"),
        (b"", 400, "JSON"),
        (b"[1, 2]", 400, "object"),
        (b'{"model": "policy", "messages": [{"role": "user", "content": "\xff\xfe"}]}', 400, "not UTF-8"),
        (b"[" * 100_000, 400, ""),
        (BODY | {"messages": [{"role": "user", "content": "x" * 2_000_000}]}, 413, "gateway.max_body_mib"),
        (BODY | {"messages": [{"role": "user", "content": "word " * 600}]}, 400, "context is 512"),
        (BODY | {"messages": [{"role": "wizard", "content": ""}]}, 400, "messages.0.role"),
        (BODY | {"messages": [{"role": "tool", "content": "x"}]}, 400, "tool_call_id"),
        (BODY | {"messages": image}, 400, "content parts are text"),
        (BODY | {"messages": ASK * 2, "functions": []}, 400, "unknown parameter: functions"),
        (BODY | {"tools": [{"type": "retrieval"}]}, 400, "tools"),
        (BODY | {"tools": [tool | {"function": {"name": "has space"}}]}, 400, "tools"),
        (BODY | {"tools": [tool, tool]}, 400, "two tools of one name"),
        (
            BODY | {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "wrong"}}}]},
            400,
            "no JSON Schema",
        ),
        (BODY | {"tool_choice": "required"}, 400, "needs tools"),
        (BODY | {"tools": [tool], "tool_choice": {"function": {"name": "g"}}}, 400, "not among the tools"),
        (BODY | {"response_format": {"type": "json_schema"}}, 400, "json_schema.schema"),
        (BODY | {"response_format": {"type": "xml"}}, 400, "response_format"),
        (BODY | {"top_logprobs": 3}, 400, "needs logprobs"),
        (BODY | {"n": 0}, 400, "n:"),
        (BODY | {"temperature": "hot"}, 400, "temperature"),
        (BODY | {"reasoning_effort": "high"}, 400, "unknown parameter: reasoning_effort"),
        (BODY | {"model": "gpt-5"}, 404, "gpt-5"),
        (BODY | {"model": "policy@v0099"}, 404, "v0099"),
        (BODY | {"model": "policy@"}, 404, "'policy@' does not exist"),
        (BODY | {"max_completion_tokens": 9}, 400, "max_tokens is 8 and max_completion_tokens 9"),
    ]
    for sent, status, said in table:
        content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        answer = httpx.post(url, content=content, timeout=30)
        error = answer.json()["error"]
        assert (answer.status_code, said in error["message"]) == (status, True), (sent, answer.text[:300])
        assert error["code"] and error["type"]
    assert httpx.get(f"{address}/v2/unknown", timeout=5).json()["error"]["code"] == "not_found"
    lonely = httpx.post(url, json=BODY, headers={"X-Checkloop-Agent": "worker"}, timeout=5)
    assert (lonely.status_code, lonely.json()["error"]["code"]) == (400, "no_session")
    assert httpx.post(f"{address}/sessions/{'x' * 65}/v1/chat/completions", json=BODY, timeout=5).status_code == 400
    with log.lookup() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM step").scalar_one() == 0
    assert chat(address).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("no json", 502, IncidentKind.BAD_ANSWER),
        ("html json", 502, IncidentKind.BAD_ANSWER),
        ("no choices", 502, IncidentKind.BAD_ANSWER),
        ("other prompt", 502, IncidentKind.BAD_ANSWER),
        ("no ids", 502, IncidentKind.BAD_ANSWER),
        ("too few logprobs", 502, IncidentKind.BAD_ANSWER),
        ("error 500", 503, IncidentKind.SERVER_FAILED),
        ("error 400", 400, None),
    ],
)
def test_what_vllm_answers_wrong(start: Start, fault: str, status: int, kind: IncidentKind | None) -> None:
    address, _, log, (vllm,) = start()
    vllm.fault = fault
    answer = chat(address)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert incident_counts(log) == ({kind: 1} if kind else {})
    assert token_sequences(log, ["s"]) == {}, "no step, no tokens, nothing that could become a reward"
    if status >= 500:
        assert answer.headers["Retry-After"]
    vllm.fault = ""
    assert chat(address).json()["choices"][0]["finish_reason"] == "stop"
    assert len(token_sequences(log, ["s"])["s"].completion_ids) == 5


@pytest.mark.parametrize("fault", ["dies in the middle", "garbage in the middle", "error in the middle"])
def test_a_stream_that_breaks_says_so_and_is_no_step(start: Start, fault: str) -> None:
    address, _, log, (vllm,) = start()
    vllm.fault = fault
    events = [line for line in chat(address, stream=True).text.splitlines() if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"].startswith("policy_server")
    assert "data: [DONE]" not in events
    assert token_sequences(log, ["s"]) == {}
    assert sum(incident_counts(log).values()) == 1


def test_a_server_that_is_gone(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="does not answer"), gateway_over(*_lonely(tmp_path)):
        pass


def _lonely(home: Path) -> tuple[Log, Settings]:
    settings = settings_of(home / "lonely", ["http://127.0.0.1:9"])
    settings = settings.model_copy(update={"server": settings.server.model_copy(update={"start_timeout_s": 0.5})})
    log = open_log(settings.url)
    add_version(log, "v0001", parent=None, path=str(prepare_bundled_model(MODEL).resolve()), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    return log, settings


def test_too_many_are_told_to_come_back(start: Start) -> None:
    address, _, log, (vllm,) = start(max_in_flight=2, max_waiting=3)
    vllm.pause_s = 0.2

    def ask(n: int) -> httpx.Response:
        return httpx.post(f"{address}/sessions/busy-{n}/v1/chat/completions", json=BODY, timeout=30)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 5 + [429] * 7
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] and refused.json()["error"]["type"] == "rate_limit_error"
    with log.lookup() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM step").scalar_one() == 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_ends_the_generation(start: Start, stream: bool) -> None:
    address, _, log, (vllm,) = start(request_timeout_s=0.6)
    vllm.pause_s, vllm.tokens = 0.1, 400
    answer = chat(address, stream=stream, max_tokens=400)
    if stream:
        last = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
        assert last["error"]["code"] == "timeout"
        with log.lookup() as connection:
            step = connection.exec_driver_sql("SELECT finish_reason, trainable, sampled_tokens FROM step").one()
        assert step[0] == "cancelled" and not step[1] and 1 <= step[2] <= 8
    else:
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
        assert incident_counts(log) == {IncidentKind.DEADLINE: 1}
    time.sleep(0.4)
    assert vllm.running == 0, "vLLM was told to stop"


def test_slow_readers_hold_nobody_up(start: Start) -> None:
    """500 clients that ask for a stream and do not read it; a 501st is answered at once, and all of them are logged."""
    address, gateway, log, (vllm,) = start(max_in_flight=64, max_waiting=1000)
    vllm.tokens = 40
    host, port = address.removeprefix("http://").split(":")
    payload = json.dumps(BODY | {"stream": True, "max_tokens": 64}).encode()
    slow = []
    for n in range(500):
        link = socket.create_connection((host, int(port)), timeout=30)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        head = (
            f"POST /sessions/slow-{n}/v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        link.sendall(head.encode() + payload)
        slow.append(link)
    deadline = time.monotonic() + 60
    count = 0
    while count < 500 and time.monotonic() < deadline:
        time.sleep(0.2)
        with log.lookup() as connection:
            count = connection.exec_driver_sql("SELECT count(*) FROM step").scalar_one()
    assert count == 500
    assert chat(address).status_code == 200
    assert gateway.admission.in_flight == 0
    for link in slow:
        link.close()


def test_a_log_that_is_locked_or_full_gives_no_answer_and_heals(start: Start, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("store.database.LOCK_TIMEOUT_S", 0.5)
    address, _, log, _ = start()
    assert chat(address).status_code == 200
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    for stream in (False, True):
        answer = chat(address, stream=stream)
        said = answer.text if stream else answer.json()["error"]["code"]
        assert "log_failed" in said and "[DONE]" not in answer.text
    blocker.execute("ROLLBACK")
    assert chat(address).status_code == 200
    pages = blocker.execute("PRAGMA page_count").fetchone()[0]
    blocker.close()
    for connection in _pooled(log):
        connection.execute(f"PRAGMA max_page_count={pages}")
    statuses = {
        chat(address, messages=[{"role": "user", "content": "x" * 400 + str(n)}]).status_code for n in range(60)
    }
    assert 503 in statuses
    with log.lookup() as connection2:
        assert connection2.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


def _pooled(log: Log) -> list[Any]:
    made = []
    with ExitStack() as stack:
        for _ in range(4):
            made.append(stack.enter_context(log.engine.connect()).connection.driver_connection)
    return made


def test_a_token_is_asked_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKLOOP_TOKEN", "sesame")
    address, *_ = start()
    assert chat(address).status_code == 401
    wrong = httpx.get(f"{address}/v1/models", headers={"Authorization": "Bearer sesam"}, timeout=5)
    assert wrong.status_code == 401 and wrong.json()["error"]["code"] == "invalid_api_key"
    for path in ("/admin/promote/v0001", "/admin/stage/v0001", "/admin/split?share=0"):
        assert httpx.post(f"{address}{path}", timeout=5).status_code == 401
    right = {"Authorization": "Bearer sesame"}
    assert httpx.post(f"{address}/v1/chat/completions", json=BODY, headers=right, timeout=5).status_code == 200
    assert httpx.get(f"{address}/health", timeout=5).status_code == 200


def test_another_address_than_loopback_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHECKLOOP_TOKEN", raising=False)
    log, settings = _lonely(tmp_path)
    open_to_all = settings.model_copy(update={"gateway": settings.gateway.model_copy(update={"host": "0.0.0.0"})})
    with pytest.raises(ServerError, match="CHECKLOOP_TOKEN"), gateway_over(log, open_to_all):
        pass


def test_sessions_stick_to_a_replica_and_move_when_it_dies(start: Start) -> None:
    address, gateway, _, servers = start(servers=3)
    for server in servers:
        server.requests.clear()

    def ask(session: str) -> int:
        before = [len(s.requests) for s in servers]
        body = BODY | {"max_tokens": 4}
        assert httpx.post(f"{address}/sessions/{session}/v1/chat/completions", json=body, timeout=10).status_code == 200
        return next(i for i, s in enumerate(servers) if len(s.requests) > before[i])

    homes = {f"r{n}": ask(f"r{n}") for n in range(24)}
    assert set(homes.values()) == {0, 1, 2}, "24 sessions spread over three servers"
    assert {name: ask(name) for name in homes} == homes
    servers[1].fault = "sick"
    deadline = time.monotonic() + 10
    while gateway.fleet.live_slots[1].server.alive and time.monotonic() < deadline:
        time.sleep(0.1)
    moved = {name: ask(name) for name in homes}
    assert all(moved[name] == home for name, home in homes.items() if home != 1), "only its own sessions move"
    assert 1 not in moved.values()
    loaded = len(servers[1].weights)
    servers[1].weights, servers[1].fault = "", ""
    while not servers[1].weights and time.monotonic() < deadline + 10:
        time.sleep(0.1)
    assert len(servers[1].weights) == loaded, "what comes back gets the weights that it should hold"


def versions_of(log: Log, tmp_path: Path, *names: str) -> None:
    """Versions whose probe says -1 a token, as the stand-in does unless it holds v0003."""
    for name in names:
        place = tmp_path / name
        shutil.copytree(prepare_bundled_model(MODEL), place, copy_function=_link)
        (place / "probe.json").write_text(json.dumps({"ids": [[1, 2, 3]], "logprobs": [[-1.0, -1.0]]}))
        add_version(log, name, parent="v0001", path=str(place), files={})


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


@pytest.mark.parametrize("stream", [True, False])
def test_a_swap_under_load_loses_nothing_and_names_every_token(start: Start, tmp_path: Path, stream: bool) -> None:
    """24 answers of 40 tokens are on their way when v0002 is promoted on two replicas. Streams go on where they were:
    41 tokens each, in order, and the log says which version sampled how many; the others are sampled anew."""
    address, gateway, log, servers = start(servers=2)
    versions_of(log, tmp_path, "v0002")
    for server in servers:
        server.pause_s, server.tokens = 0.03, 40

    def ask(n: int) -> httpx.Response:
        body = BODY | {"max_tokens": 64, "stream": stream}
        return httpx.post(f"{address}/sessions/w{n}/v1/chat/completions", json=body, timeout=60)

    with ThreadPoolExecutor(25) as pool:
        asked = [pool.submit(ask, n) for n in range(24)]
        while sum(server.running for server in servers) < 24:
            time.sleep(0.02)
        time.sleep(0.2)
        swap = httpx.post(f"{address}/admin/promote/v0002", timeout=30).json()
        answers = [future.result() for future in asked]
    assert swap["accepted"] and swap["drain_s"] < 1.0
    assert [answer.status_code for answer in answers] == [200] * 24
    if stream:
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert {slot.version for slot in gateway.fleet.live_slots} == {"v0002"}
    with log.lookup() as connection:
        steps = connection.exec_driver_sql("SELECT version, version_spans, sampled_tokens FROM step").all()
    assert len(steps) == 24
    spans = [json.loads(row[1]) if isinstance(row[1], str) else row[1] for row in steps]
    if stream:
        across = [span for span in spans if span]
        assert len(across) >= 20
        for row, span in zip(steps, spans, strict=True):
            if span:
                assert [version for version, _ in span] == ["v0001", "v0002"]
                assert sum(count for _, count in span) == row[2]
    else:
        assert {row[0] for row in steps} == {"v0002"} and not any(spans)
    prompts = [request["prompt"] for server in servers for request in server.requests if request.get("stream")]
    assert not stream or max(map(len, prompts)) > min(map(len, prompts)), "they went on from the ids they had"


def test_a_false_proof_on_one_replica_brings_all_back(start: Start, tmp_path: Path) -> None:
    address, gateway, log, servers = start(servers=2)
    versions_of(log, tmp_path, "v0003")
    swap = httpx.post(f"{address}/admin/promote/v0003", timeout=30).json()
    assert not swap["accepted"] and "nats a token away" in swap["proof"]["reason"]
    assert {slot.version for slot in gateway.fleet.live_slots} == {"v0001"}
    assert not any(server.weights.endswith("v0003") for server in servers)
    assert httpx.post(f"{address}/admin/promote/v0003", timeout=30).status_code == 409, "it is refused now"
    assert chat(address).json()["model"] == "policy@v0001"


def test_a_reload_that_fails_keeps_the_old_version(start: Start, tmp_path: Path) -> None:
    address, _, log, (vllm,) = start()
    versions_of(log, tmp_path, "v0002")
    vllm.fault = "reload fails"
    answer = httpx.post(f"{address}/admin/promote/v0002", timeout=30)
    assert answer.status_code == 503 and "no such file" in answer.json()["error"]["message"]
    refused = chat(address)
    assert refused.status_code == 503 and refused.headers["Retry-After"], "what it holds by now nobody knows"
    vllm.fault = ""
    deadline = time.monotonic() + 20
    while (answered := chat(address)).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert answered.json()["model"] == "policy@v0001" and vllm.weights.endswith("model")
    assert httpx.post(f"{address}/admin/promote/v0042", timeout=30).status_code == 404


def test_a_split_needs_a_place_for_its_candidate(start: Start, tmp_path: Path) -> None:
    address, _, log, _ = start()
    versions_of(log, tmp_path, "v0002")
    refused = httpx.post(f"{address}/admin/split?candidate=v0002&share=0.5", timeout=30)
    assert refused.status_code == 409 and "server.staging" in refused.json()["error"]["message"]
    assert httpx.post(f"{address}/admin/split?candidate=v0001&share=0.5", timeout=30).status_code == 409


SERVE = """
import asyncio, sys
from agent.commands import serve
from store.database import open_log
from store.settings import load_settings
settings = load_settings()
asyncio.run(serve(open_log(settings.url), settings))
"""


def test_sigterm_lets_answers_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    with faulty_servers() as (vllm,):
        settings = settings_of(tmp_path, [vllm.url])
        log = open_log(settings.url)
        add_version(log, "v0001", parent=None, path=str(prepare_bundled_model(MODEL).resolve()), files={})
        set_version_state(log, "v0001", VersionState.LIVE, "first")
        environment = {
            "CHECKLOOP_HOME": str(tmp_path),
            "CHECKLOOP_SERVER": settings.server.model_dump_json(),
            "CHECKLOOP_GATEWAY": settings.gateway.model_dump_json(),
        }
        root = Path(__file__).resolve().parent.parent
        process = subprocess.Popen([sys.executable, "-c", SERVE], cwd=root, env=os.environ | environment)
        _wait_for(settings.gateway_url)
        vllm.pause_s, vllm.tokens = 0.15, 12
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(chat, settings.gateway_url, max_tokens=32)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{settings.gateway_url}/health", timeout=2)
            assert running.result().status_code == 200
        process.wait(20)
        assert len(token_sequences(log, ["s"])["s"].completion_ids) == 13
        log.close()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the gateway did not come up")
