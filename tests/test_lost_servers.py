"""Servers that go, come back with other weights, or do not take weights back: who answers, and with what.

vLLM is a stand-in here; the gateway before it is real.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent import fleet as fleets
from agent import vllm_client
from agent.gateway import Gateway
from agent.ports import free_ports
from agent.slot import Slot, Weights
from agent.vllm_client import ServerError, Stuck, VllmClient
from agent.vllm_server import VllmServer
from store.database import Log, open_log
from store.incidents import incident_counts
from store.settings import ServerSettings, Settings, load_settings
from store.tokens import token_sequences
from store.versions import get_version, set_version_state
from store.vocabulary import IncidentKind, VersionState
from tests.faulty_vllm import FaultyVllm, a_version, faulty_servers, gateway_over, run_app

BODY: dict[str, Any] = {"model": "policy", "messages": [{"role": "user", "content": "Is it?"}], "max_tokens": 8}
SOON_S = 20.0


@pytest.fixture(autouse=True)
def _looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "LOOK_S", 0.1)
    monkeypatch.setattr(fleets, "LONGEST_PAUSE_S", 0.4)


def settings_of(home: Path, servers: list[FaultyVllm]) -> Settings:
    port, server_port = free_ports()
    server = {"port": server_port, "urls": [s.url for s in servers], "max_model_len": 512, "start_timeout_s": 5}
    return load_settings(home=home, gateway={"port": port}, server=server | {"max_loras": 2})


Start = Callable[..., tuple[str, Gateway, Log, list[FaultyVllm]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(servers=1): (address, gateway, log, stand-ins). v0001 is live; its probe says -1 a token."""
    with ExitStack() as stack:

        def run(servers: int = 1) -> tuple[str, Gateway, Log, list[FaultyVllm]]:
            stand_ins = stack.enter_context(faulty_servers(servers))
            settings = settings_of(tmp_path, stand_ins)
            log = open_log(settings.url)
            stack.callback(log.close)
            a_version(log, tmp_path, "v0001", parent=None)
            set_version_state(log, "v0001", VersionState.LIVE, "first")
            address, gateway = stack.enter_context(gateway_over(log, settings))
            return address, gateway, log, stand_ins

        yield run


def ask(address: str, session: str = "s", **changes: Any) -> httpx.Response:
    return httpx.post(f"{address}/sessions/{session}/v1/chat/completions", json=BODY | changes, timeout=30)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and bool(answer.headers["Retry-After"])


@pytest.mark.parametrize("version", ["v0002", "v0003"])
def test_nobody_is_answered_by_weights_that_could_not_be_taken_back(start: Start, tmp_path: Path, version: str) -> None:
    """v0002 cannot be asked for its proof, v0003 fails it; then the old weights cannot be loaded."""
    address, gateway, log, (vllm,) = start()
    a_version(log, tmp_path, version)
    vllm.reloads_left, vllm.fault = 1, "unproved" if version == "v0002" else ""
    swap = httpx.post(f"{address}/admin/promote/{version}", timeout=30)
    assert vllm.weights.endswith(version), "it holds the new weights and does not let go of them"
    if version == "v0003":
        assert not swap.json()["accepted"]
        assert get_version(log, version).state is VersionState.REFUSED
        assert get_version(log, version).figures["proof"]["error"] == 8.0
    else:
        assert swap.status_code == 503
    for stream in (False, True):
        assert refused(ask(address, stream=stream))
    assert httpx.get(f"{address}/health", timeout=5).status_code == 503
    until(lambda: IncidentKind.SERVER_DOWN in incident_counts(log), "the watcher says that it does not come back")
    assert token_sequences(log, ["s"]) == {} and refused(ask(address))
    vllm.reloads_left, vllm.fault = None, ""
    until(lambda: gateway.fleet.live.able, "it is brought back once that is possible")
    assert vllm.weights.endswith("v0001") and ask(address).json()["model"] == "policy@v0001"


def test_a_server_that_comes_back_with_other_weights_answers_nothing_before_it_has_the_right_ones(
    tmp_path: Path,
) -> None:
    vllm, (port, _) = FaultyVllm(), free_ports()
    vllm.url = f"http://127.0.0.1:{port}"
    settings = settings_of(tmp_path, [vllm])
    log = open_log(settings.url)
    held = a_version(log, tmp_path, "v0001", parent=None)
    set_version_state(log, "v0001", VersionState.LIVE, "first")
    with ExitStack() as stack:
        with run_app(vllm.app(), port):
            address, _ = stack.enter_context(gateway_over(log, settings))
            assert ask(address).status_code == 200
        assert refused(ask(address)), "nobody listens there"
        vllm.weights, vllm.reloads_left, vllm.fault = "something else", 0, ""
        with run_app(vllm.app(), port):
            until(lambda: IncidentKind.SERVER_DOWN in incident_counts(log), "it is seen, and does not take weights")
            answered = len(vllm.requests)
            assert refused(ask(address)) and len(vllm.requests) == answered
            vllm.reloads_left = None
            until(lambda: ask(address).status_code == 200, "it comes back")
            assert vllm.weights == held
    log.close()


def test_a_lost_connection_is_enough(start: Start) -> None:
    """The server was restarted between two looks at it: a request noticed, its health never did."""
    address, gateway, _, (vllm,) = start()
    assert ask(address).status_code == 200
    vllm.weights, vllm.fault, vllm.reloads_left = "something else", "away", 0
    assert refused(ask(address)) and not gateway.fleet.live.able
    vllm.fault = ""
    assert refused(ask(address)), "it would answer, with whatever it holds"
    vllm.reloads_left = None
    until(lambda: gateway.fleet.live.able, "it comes back")
    assert vllm.weights.endswith("v0001") and ask(address).status_code == 200


def test_a_server_that_is_slow_to_say_that_it_is_well_is_not_gone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be busy: nothing is cut off and no weights are loaded again. One that goes on saying nothing is gone."""
    monkeypatch.setattr(vllm_client, "HEALTH_TIMEOUT_S", 0.5)
    address, gateway, _, (vllm,) = start()
    looks: list[bool] = []
    looked = gateway.fleet.live.server.look

    async def look() -> bool:
        looks.append(await looked())
        return looks[-1]

    monkeypatch.setattr(gateway.fleet.live.server, "look", look)
    vllm.weights, vllm.stuck = "as they were", "health"
    until(lambda: len(looks) > 0, "somebody looks")
    assert ask(address).status_code == 200
    vllm.stuck = ""
    until(lambda: len(looks) > 3, "somebody looks again")
    assert all(looks) and vllm.weights == "as they were" and ask(address).status_code == 200
    vllm.stuck = "health"
    until(lambda: not gateway.fleet.live.able, "it goes on saying nothing")
    assert refused(ask(address))
    vllm.stuck = ""
    until(lambda: gateway.fleet.live.able, "it is brought back")
    assert vllm.weights.endswith("v0001") and ask(address).status_code == 200


def test_a_server_that_fails_its_proof_when_it_returns_stays_out(start: Start) -> None:
    address, gateway, log, (vllm,) = start()
    vllm.fault = "sick"
    until(lambda: not gateway.fleet.live.able, "its health is looked at")
    place = Path(get_version(log, "v0001").path)
    honest = (place / "probe.json").read_text()
    (place / "probe.json").write_text(honest.replace("-1.0", "-7.0"))
    vllm.fault = ""
    until(lambda: IncidentKind.SERVER_DOWN in incident_counts(log), "its proof is asked for")
    assert refused(ask(address)) and "nats a token away" in ask(address).json()["error"]["message"] + str(_details(log))
    (place / "probe.json").write_text(honest)
    until(lambda: gateway.fleet.live.able, "it is watched for as long as it takes")


def _details(log: Log) -> list[str]:
    with log.lookup() as connection:
        return list(connection.exec_driver_sql("SELECT detail FROM incident WHERE trajectory_id IS NULL").scalars())


def test_adapters_that_are_loaded_are_not_loaded_again(start: Start, tmp_path: Path) -> None:
    """vLLM answers 400 to that. After a blip of its health, and in a gateway that starts over it."""
    address, gateway, log, (vllm,) = start()
    a_version(log, tmp_path, "v0002", adapter=True)
    assert httpx.post(f"{address}/admin/promote/v0002", timeout=30).json()["accepted"]
    assert vllm.loads == ["adapter-v0002"]
    vllm.fault = "sick"
    until(lambda: not gateway.fleet.live.able, "its health is looked at")
    vllm.fault = ""
    until(lambda: gateway.fleet.live.able, "it comes back")
    assert ask(address).json()["model"] == "policy@v0002"
    with gateway_over(log, settings_of(tmp_path, [vllm])) as (second, _):
        assert ask(second, "t").json()["model"] == "policy@v0002"
        assert vllm.requests[-1]["model"] == "adapter-v0002"
    assert vllm.loads == ["adapter-v0002"] == vllm.adapters
    vllm.fault = "sick"
    until(lambda: not gateway.fleet.live.able, "its health is looked at")
    vllm.adapters.clear()
    vllm.fault = ""
    until(lambda: gateway.fleet.live.able, "it comes back")
    assert vllm.adapters == ["adapter-v0002"], "one that was restarted gets it again"


@pytest.mark.parametrize("adapter", [False, True])
def test_a_dead_replica_holds_no_promotion_up_and_gets_it_when_it_returns(
    start: Start, tmp_path: Path, adapter: bool
) -> None:
    address, gateway, log, (one, two) = start(servers=2)
    a_version(log, tmp_path, "v0002", adapter=adapter)
    two.fault = "sick"
    until(lambda: not gateway.fleet.live_slots[1].able, "its health is looked at")
    swap = httpx.post(f"{address}/admin/promote/v0002", timeout=30).json()
    assert swap["accepted"] and swap["server"] == "live-0"
    assert {ask(address, f"s{n}").json()["model"] for n in range(12)} == {"policy@v0002"}
    before = len(two.requests)
    two.fault = ""
    until(lambda: gateway.fleet.live_slots[1].able, "it returns")
    assert two.weights.endswith("v0001" if adapter else "v0002") and (two.adapters == ["adapter-v0002"]) == adapter
    assert {ask(address, f"s{n}").json()["model"] for n in range(12)} == {"policy@v0002"}
    assert len(two.requests) > before, "sessions come back to it"
    one.fault = two.fault = "sick"
    until(lambda: not any(slot.able for slot in gateway.fleet.live_slots), "both are away")
    assert httpx.post(f"{address}/admin/promote/v0001", timeout=30).status_code == 503


def test_a_candidate_that_fails_its_proof_takes_no_sessions_and_is_refused(start: Start, tmp_path: Path) -> None:
    address, _, log, (vllm,) = start()
    a_version(log, tmp_path, "v0003", adapter=True)
    answer = httpx.post(f"{address}/admin/split?candidate=v0003&share=0.5", timeout=30)
    assert answer.status_code == 409 and "is refused, its proof failed" in answer.json()["error"]["message"]
    found = get_version(log, "v0003")
    assert found.state is VersionState.REFUSED and found.figures["proof"]["error"] == 8.0
    assert vllm.adapters == [] and ask(address, model="policy@v0003").status_code == 404


@pytest.mark.parametrize("what", ["reload", "probe", "adapter"])
def test_an_engine_that_is_stuck_keeps_the_door_closed_no_longer_than_its_deadline(
    start: Start, tmp_path: Path, what: str
) -> None:
    address, gateway, log, (vllm,) = start()
    a_version(log, tmp_path, "v0002", adapter=what == "adapter")
    gateway.fleet.live.server.admin_timeout_s = 0.3
    vllm.stuck = what
    try:
        answer = httpx.post(f"{address}/admin/promote/v0002", timeout=10)
        assert answer.status_code == 503 and "within 0.3 s (server.start_timeout_s)" in answer.text
        if what != "adapter":  # the weights below it can be brought in at once
            assert httpx.get(f"{address}/health", timeout=5).status_code == 503, "what it holds by now nobody knows"
    finally:
        vllm.stuck = ""
    until(lambda: gateway.fleet.live.able, "it is brought back once it moves again")
    assert vllm.weights.endswith("v0001") and ask(address).json()["model"] == "policy@v0001"


class OwnServer(VllmServer):
    """A server of ours without a process: what it holds is `held`."""

    def __init__(self, home: Path) -> None:
        super().__init__("live", 1, home, ServerSettings(), home)
        self.running, self.reloads_left, self.held = True, 9, Path()

    @property
    def alive(self) -> bool:
        return self.running

    def launch(self) -> None:
        self.running, self.held = True, self.model_dir

    def stop(self) -> None:
        self.running = False

    async def wait_ready(self) -> None:
        assert self.running

    async def adapters(self) -> list[str]:
        return []

    async def reload(self, weights: Path) -> None:
        self.held = weights
        if self.reloads_left == 0:
            raise ServerError("half of it was loaded")
        self.reloads_left -= 1

    async def prompt_logprobs(self, prompts: Any, model: str = "") -> list[list[float]]:
        return [[-9.0, -9.0] if self.held.name == "new" else [-1.0, -1.0]]


async def test_a_server_of_ours_that_does_not_take_weights_back_is_started_again_with_them(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        probe = {"ids": [[1, 2, 3]], "logprobs": [[-1.0, -1.0]]}
        (tmp_path / name / "probe.json").write_text(json.dumps(probe))
    old, new = (Weights(name, tmp_path / name) for name in ("old", "new"))
    server = OwnServer(tmp_path / "old")
    slot = Slot(server, old)
    server.reloads_left = 1
    async with slot.closed(interrupt=True):
        loaded = await slot.load(new)
    assert not loaded.accepted and not slot.able and "did not come back" in str(slot.lost)
    await fleets._look_after(slot)
    assert slot.able and slot.version == "old" and server.held == tmp_path / "old"


async def test_a_server_of_ours_that_is_stuck_is_ended_and_started_again(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()

    class Stopped(OwnServer):
        """Its address is a stand-in's, which moves again once it was started anew."""

        async def reload(self, weights: Path) -> None:
            await VllmClient.reload(self, weights)

        def launch(self) -> None:
            super().launch()
            vllm.stuck, vllm.weights = "", str(self.model_dir)

    with faulty_servers() as (vllm,):
        vllm.stuck = "reload"
        server = Stopped(tmp_path / "old")
        server.url, server.admin_timeout_s, server.after_reload = vllm.url, 0.2, ()
        slot = Slot(server, Weights("old", tmp_path / "old"))
        with pytest.raises(Stuck, match="did not end /collective_rpc"):
            async with slot.closed(interrupt=True):
                await slot.load(Weights("new", tmp_path / "new"))
        assert not server.running and not slot.able and slot.is_open
        await fleets._look_after(slot)
        assert slot.able and slot.version == "old" and vllm.weights.endswith("old")
        await server.close()


async def test_a_step_that_comes_while_an_adapter_is_unloaded_is_not_sent_to_it(tmp_path: Path) -> None:
    server = OwnServer(tmp_path)
    adapter = Weights("v2", tmp_path, Weights("v1", tmp_path))
    slot = Slot(server, Weights("v1", tmp_path), adapters={"v2": adapter})
    seen: list[bool] = []

    async def unload(name: str) -> None:
        seen.append(slot.holds("v2"))
        if len(seen) == 1:
            raise ServerError("not now")

    server.unload_adapter = unload  # type: ignore[method-assign]
    with pytest.raises(ServerError):
        await slot.unload_unused({"v1"})
    assert slot.holds("v2"), "it is there still, and tidied up the next time"
    await slot.unload_unused({"v1"})
    assert seen == [False, False] and not slot.holds("v2")


async def test_a_load_that_is_broken_off_leaves_the_slot_lost(tmp_path: Path) -> None:
    """A gateway that is told to stop, say: half of the weights may be in."""
    server = OwnServer(tmp_path)
    slot = Slot(server, Weights("old", tmp_path / "old"))

    async def forever(weights: Path) -> None:
        await asyncio.sleep(60)

    server.reload = forever  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), slot.closed(interrupt=True):
            await slot.load(Weights("new", tmp_path / "new"))
    assert not slot.able and slot.version == "old" and slot.is_open


async def test_what_a_promotion_chose_while_a_server_was_coming_back_is_not_forgotten(tmp_path: Path) -> None:
    server = OwnServer(tmp_path)
    slot = Slot(server, Weights("old", tmp_path / "old"))
    slot.doubt("a server of ours that runs holds what it was given")
    assert slot.able
    server.running = False

    async def meanwhile() -> None:
        slot.owe(Weights("later", tmp_path / "later"), "it went live")

    server.wait_ready = meanwhile  # type: ignore[method-assign]
    await slot.revive()
    assert not slot.able
    await fleets._look_after(slot)
    assert server.held == tmp_path / "old" or not slot.able
    server.wait_ready = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
    await fleets._look_after(slot)
    assert slot.able and slot.version == "later" and server.held == tmp_path / "later"
