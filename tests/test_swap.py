"""Swaps on the real vLLM with the real model: what runs goes on, and every token has the version that sampled it.

Full weights in place, a staging server that becomes the live one, LoRA adapters beside what runs, a traffic split. The
tests are one story, told in order: each goes on with the versions that the one before left.
"""

import asyncio
import json
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from agent.bundled_model import prepare_bundled_model
from agent.gateway_process import GatewayProcess
from agent.ports import free_ports
from agent.proof import read_probe
from agent.vllm_client import VllmClient
from benchmarks.adapters import make_adapter
from store.database import open_log
from store.settings import load_settings
from store.tokens import TokenSequence, token_sequences
from store.traffic import traffic_split
from store.versions import add_version, get_version, set_version_state
from store.vocabulary import VersionState
from tests.distil_log import a_card
from tests.serving import MODEL, Serving
from train.checkpoints import write_probe
from train.judge_files import read_judge, write_card
from train.judge_serving import load_beside

PROBE = [list(range(100 * n + 20, 100 * n + 50)) for n in range(1, 4)]
STREAMS = 16


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A live and a staging server that take adapters. v0001 is live; v0002 and v0004 have other full weights, v0003 and
    v0005 are adapters on v0002 and v0004."""
    home = tmp_path_factory.mktemp("fleet")
    gateway, port = free_ports()
    server = {"port": port, "max_model_len": 1024, "max_num_seqs": 32, "max_loras": 3, "staging": True}
    settings = load_settings(home=home, gateway={"port": gateway}, server=server)
    log = open_log(settings.url)
    places = {name: home / name for name in ("v0001", "v0002", "v0003", "v0004", "v0005")}
    for name, changed in (("v0001", ()), ("v0002", (3, 9)), ("v0004", (6, 12, 18))):
        shutil.copytree(prepare_bundled_model(MODEL), places[name])
        weights = load_file(places[name] / "model.safetensors")
        for layer in changed:
            weights[f"model.layers.{layer}.mlp.down_proj.weight"] *= 0.5
        save_file(weights, places[name] / "model.safetensors", metadata={"format": "pt"})
        write_probe(places[name], PROBE)
    make_adapter(places["v0002"], places["v0003"], PROBE, seed=3)
    make_adapter(places["v0004"], places["v0005"], PROBE, seed=5)
    parents = {"v0001": None, "v0002": "v0001", "v0003": "v0002", "v0004": "v0001", "v0005": "v0004"}
    for name, parent in parents.items():
        add_version(log, name, parent=parent, path=str(places[name]), files={})
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    with GatewayProcess(settings) as running:
        yield Serving(running, log, settings)


class Streams:
    """Streams that run while something else happens; each has said a few tokens before this returns."""

    def __init__(self, serving: Serving, name: str, tokens: int) -> None:
        self.names = [f"{name}-{n}" for n in range(STREAMS)]
        self.failed: list[str] = []
        self.begun = threading.Semaphore(0)
        self._url, self._tokens = serving.url, tokens
        self._pool = ThreadPoolExecutor(STREAMS)
        self._running = [self._pool.submit(self._read, session) for session in self.names]
        for _ in self.names:
            assert self.begun.acquire(timeout=300)

    def _read(self, session: str) -> None:
        body: dict[str, Any] = {
            "model": "policy",
            "messages": [{"role": "user", "content": f"Tell me a story about {session}."}],
            "max_tokens": self._tokens,
            "stream": True,
            "logit_bias": {"2": -100},
        }
        last = ""
        url = f"{self._url}/sessions/{session}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=400) as answer:
            for n, line in enumerate(filter(None, answer.iter_lines())):
                if n == 8:
                    self.begun.release()
                last = line
        if last != "data: [DONE]":
            self.failed.append(f"{session}: {last[:200]}")

    def wait(self) -> None:
        for future in self._running:
            future.result(120)
        self._pool.shutdown()


def spans_of(serving: Serving, name: str) -> list[list[list[Any]] | None]:
    with serving.log.lookup() as connection:
        query = f"SELECT version_spans FROM step WHERE trajectory_id LIKE '{name}-%' ORDER BY id"
        found = connection.exec_driver_sql(query).scalars().all()
    return [json.loads(value) if isinstance(value, str) else value for value in found]


def versions(serving: Serving, name: str) -> set[str]:
    with serving.log.lookup() as connection:
        query = f"SELECT version FROM step WHERE trajectory_id LIKE '{name}-%'"
        return set(connection.exec_driver_sql(query).scalars())


def scored(port: int, sequence: TokenSequence, model: str = "policy") -> list[float]:
    """|logged logprob - the server's own now|, for each sampled token."""
    ids = sequence.prompt_ids + sequence.completion_ids
    body = {"model": model, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
    rows = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=300).json()["choices"][0]
    start = len(sequence.prompt_ids)
    return [
        abs(rows["prompt_logprobs"][start + i][str(token)]["logprob"] - logged)
        for i, (token, logged) in enumerate(zip(sequence.completion_ids, sequence.logprobs, strict=True))
    ]


def ask(serving: Serving, session: str, model: str = "policy") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
    answer = httpx.post(f"{serving.url}/sessions/{session}/v1/chat/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"])


def test_streams_go_on_across_a_swap_in_place(fleet: Serving) -> None:
    """v0002 is loaded into the live server while streams run. The tokens after the swap have v0002's logprobs under a
    context read by v0002 alone; those before it do not: no cache crossed the versions, and the log tells them apart."""
    streams = Streams(fleet, "inplace", 80)
    figures = fleet.gateway.promote("v0002", "test")
    streams.wait()
    assert figures["accepted"] and figures["proof"]["closeness"] > 0.5
    assert streams.failed == []
    assert get_version(fleet.log, "v0002").state is VersionState.LIVE
    across = [span for span in spans_of(fleet, "inplace") if span]
    assert len(across) == STREAMS, "streams of 80 tokens were running"
    before, after = [], []
    for name, sequence in token_sequences(fleet.log, streams.names).items():
        assert len(sequence.completion_ids) == 80, name
        with fleet.log.lookup() as connection:
            query = f"SELECT version_spans FROM step WHERE trajectory_id = '{name}'"
            span = connection.exec_driver_sql(query).scalar_one()
        parts = json.loads(span) if isinstance(span, str) else span
        if parts:
            assert [version for version, _ in parts] == ["v0001", "v0002"]
            differences = scored(fleet.settings.server.port, sequence)
            before += differences[: parts[0][1]]
            after += differences[parts[0][1] :]
    assert statistics.mean(after) < 0.06
    assert statistics.mean(before) > 3 * statistics.mean(after)


def test_an_adapter_is_loaded_beside_what_runs(fleet: Serving) -> None:
    streams = Streams(fleet, "adapter", 50)
    figures = fleet.gateway.promote("v0003", "test")
    assert figures["accepted"] and figures["drain_s"] == 0
    assert ask(fleet, "on-adapter") == "policy@v0003"
    assert ask(fleet, "on-base", "policy@v0002") == "policy@v0002"
    streams.wait()
    assert streams.failed == [] and versions(fleet, "adapter") == {"v0002"}
    assert not any(spans_of(fleet, "adapter")), "an adapter interrupts nobody"
    body = {"model": "policy@v0003", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 30}
    httpx.post(f"{fleet.url}/sessions/scored/v1/chat/completions", json=body, timeout=300)
    sequence = token_sequences(fleet.log, ["scored"])["scored"]
    port = fleet.settings.server.port
    assert statistics.mean(scored(port, sequence, "adapter-v0003")) < 0.06
    assert statistics.mean(scored(port, sequence)) > 0.06, "the base would have said something else"


def test_a_judge_beside_the_policy_answers_with_its_own_adapter(fleet: Serving) -> None:
    """The live version v0003 is an adapter on v0002, and so is the judge. The command loads it into the live server."""
    base = fleet.settings.home / "v0002"
    place = make_adapter(base, fleet.settings.home / "judges" / "judge-0001", PROBE, seed=9)
    write_card(place, a_card("judge-0001", base, rank=8, modules=("q_proj", "v_proj")))
    url = asyncio.run(load_beside(fleet.log, fleet.settings, read_judge(fleet.settings.home, "judge-0001")))
    assert url == f"http://127.0.0.1:{fleet.settings.server.port}"
    probe = read_probe(place)
    assert probe is not None
    answered, base_answers = (asyncio.run(_asked(url, probe.ids, model)) for model in ("judge-0001", "policy"))
    rounding, change = (statistics.median(_distances(said, probe.logprobs)) for said in (answered, base_answers))
    assert rounding < 0.1 and change > 3 * rounding, "without it the answers are others"


def test_a_share_of_the_sessions_goes_to_a_staged_candidate(fleet: Serving) -> None:
    fleet.gateway.split("v0004", 0.5, "try it")
    answered = {f"split-{n}": ask(fleet, f"split-{n}") for n in range(10)}
    assert set(answered.values()) == {"policy@v0003", "policy@v0004"}
    assert {name: ask(fleet, name) for name in answered} == answered, "a session keeps its version"
    fleet.gateway.split(None, 0.0, "enough")
    assert {ask(fleet, f"after-{n}") for n in range(4)} == {"policy@v0003"}


def test_a_staging_server_becomes_the_live_one(fleet: Serving) -> None:
    """v0004 waits on the staging server: its promotion is at once. Streams move to it with the tokens they have (on a
    CPU, where two servers at work would take each other's cores)."""
    fleet.gateway.split("v0004", 1e-9, "a canary that answers nobody")
    streams = Streams(fleet, "exchange", 50)
    figures = fleet.gateway.promote("v0004", "test")
    assert traffic_split(fleet.log) is None, "what is live needs no share"
    assert figures["accepted"] and figures["reload_s"] == figures["drain_s"] == 0
    assert ask(fleet, "exchanged") == "policy@v0004"
    streams.wait()
    assert streams.failed == []
    for span in spans_of(fleet, "exchange"):
        assert span is not None and [version for version, _ in span] == ["v0003", "v0004"]


def test_an_adapter_on_the_new_base_and_back(fleet: Serving) -> None:
    assert fleet.gateway.promote("v0005", "test")["accepted"]
    assert ask(fleet, "five") == "policy@v0005"
    assert fleet.gateway.promote("v0004", "rollback")["accepted"]
    assert ask(fleet, "four") == "policy@v0004"
    deadline = time.monotonic() + 10
    while "policy@v0005" in _models(fleet) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "policy@v0005" not in _models(fleet), "unloaded when nothing used it any more"


def test_a_judge_goes_with_the_weights_that_it_sits_on(fleet: Serving) -> None:
    """The server that it was loaded into is the staging one by now, still with v0002, until it gets other weights."""
    url = f"http://127.0.0.1:{fleet.settings.server.port}"
    assert "judge-0001" in asyncio.run(_adapters(url))
    assert fleet.gateway.stage("v0001")["accepted"]
    assert asyncio.run(_adapters(url)) == []


async def _asked(url: str, prompts: Sequence[Sequence[int]], model: str) -> list[list[float]]:
    client = VllmClient("test", url)
    try:
        return await client.prompt_logprobs(prompts, model)
    finally:
        await client.close()


async def _adapters(url: str) -> list[str]:
    client = VllmClient("test", url)
    try:
        return await client.adapters()
    finally:
        await client.close()


def _distances(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> list[float]:
    return [abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]


def _models(serving: Serving) -> list[str]:
    found = httpx.get(f"{serving.url}/v1/models", timeout=10).json()["data"]
    return [model["id"] for model in found]
