"""What each kind of job does, and that one which is taken over goes on with the same work."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import train.evaluation
from agent.proof import read_probe
from agent.vllm_client import ServerError
from store.backlog import least_played, unjudged
from store.database import Log, LogError
from store.records import Scenario
from store.runs import add_run_trajectories, get_run, run_trajectories, start_run, uses_of
from store.scenarios import add_scenarios
from store.settings import Settings, load_settings
from store.trajectories import end_trajectory, list_trajectories
from store.verdicts import Reward, add_rewards
from store.versions import add_version, get_version, list_gate_decisions, live_version, set_version_state
from store.vocabulary import ExitReason, Origin, RunKind, Split, StopReason, VersionState
from tests.job_stand_ins import StandInGateway, again, done, pipeline, versions, work
from tests.logged_groups import logged_groups
from tests.serving import Serving
from tests.small_loop import small_sets
from tests.store_examples import a_scenario, start
from tests.tiny_model import write_tiny_model
from train.errors import JobRefused, TrainingFailed
from train.evaluation import Outcome
from train.job_gateway import JobGateway
from train.job_kinds import run_job
from train.job_process import JobProgress, StopRequested, reason_of
from train.progress import Stage


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", grpo={"trained_layers": 0, "scenarios_per_step": 1})


@pytest.fixture
def gateway(sqlite_log: Log) -> StandInGateway:
    return StandInGateway(sqlite_log)


Rewards = Callable[[str, Scenario], float | None]


@pytest.fixture
def plays(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rewards], list[tuple[str, int]]]:
    """Replaces playing by a function of version and scenario; what was played, as (batch, scenarios)."""
    played: list[tuple[str, int]] = []

    def replace_by(rewards: Rewards) -> list[tuple[str, int]]:
        def play_batch(_: Log, scenarios: Sequence[Scenario], *, batch: str, version: str, **__: Any) -> Any:
            played.append((batch, len(scenarios)))
            return {s.hash: [Outcome(rewards(version, s), rewards(version, s) == 1.0)] for s in scenarios}

        monkeypatch.setattr(train.evaluation, "play_batch", play_batch)
        return played

    return replace_by


def test_a_candidate_that_is_better_goes_live_once(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, plays: Callable[[Rewards], list[tuple[str, int]]]
) -> None:
    versions(sqlite_log, settings.home / "versions", "LC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(6)])
    played = plays(lambda version, _: 0.9 if version == "v0002" else 0.1)
    pipeline(sqlite_log, ("gate", {"version": "v0002", "scenarios": 4}))
    one = work(sqlite_log, settings, gateway)
    result = run_job(one)
    assert (result["passed"], result["candidate"], result["figures"]["pairs"]) == (True, "v0002", 4)
    assert gateway.told == ["stage v0002", "promote v0002"]
    assert played == [(f"{one.job.name}/v0001", 4), (f"{one.job.name}/v0002", 4)]
    assert run_job(again(sqlite_log, one))["passed"], "killed before its end was written: nothing is done twice"
    assert len(gateway.told) == 2 and len(played) == 2 and len(list_gate_decisions(sqlite_log)) == 1


def test_a_candidate_that_is_not_better_is_refused_and_the_live_version_brought_back(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, plays: Callable[[Rewards], list[tuple[str, int]]]
) -> None:
    versions(sqlite_log, settings.home / "versions", "LCC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(4)])
    plays(lambda version, _: 0.5)
    pipeline(sqlite_log, ("gate", {"version": "v0002"}))
    assert done(sqlite_log, work(sqlite_log, settings, gateway))["passed"] is False
    assert get_version(sqlite_log, "v0002").state is VersionState.REFUSED
    assert gateway.told == ["stage v0002", "stage v0001"]
    gateway.accepts = False
    pipeline(sqlite_log, ("gate", {"version": "v0003", "min_effect": -1.0}))
    assert done(sqlite_log, work(sqlite_log, settings, gateway))["reason"] == "proof failed: other logprobs"
    pipeline(sqlite_log, ("gate", {"version": "v0002"}))
    with pytest.raises(JobRefused, match="v0002 is refused: only a candidate"):
        run_job(work(sqlite_log, settings, gateway))


def test_a_gate_that_was_overtaken_by_another_version_is_refused(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, plays: Callable[[Rewards], list[tuple[str, int]]]
) -> None:
    versions(sqlite_log, settings.home / "versions", "LCC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(4)])

    def dies(version: str, scenario: Scenario) -> float:
        raise ServerError("vLLM died")

    plays(dies)
    pipeline(sqlite_log, ("gate", {"version": "v0002"}))
    one = work(sqlite_log, settings, gateway)
    with pytest.raises(ServerError, match="vLLM died"):
        run_job(one)
    set_version_state(sqlite_log, "v0003", VersionState.LIVE, "by hand")
    with pytest.raises(JobRefused, match="v0003 went live instead of v0001 meanwhile"):
        run_job(again(sqlite_log, one))


@pytest.mark.parametrize("canary", [{}, {"canary": 0.1}])
def test_a_version_that_a_person_promoted_while_the_gate_played_stays_live(
    sqlite_log: Log,
    settings: Settings,
    gateway: StandInGateway,
    plays: Callable[[Rewards], list[tuple[str, int]]],
    canary: dict[str, float],
) -> None:
    settings = settings.model_copy(update={"server": settings.server.model_copy(update={"staging": True})})
    versions(sqlite_log, settings.home / "versions", "LCC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(4)])

    def promoted_meanwhile(version: str, scenario: Scenario) -> float:
        if version == "v0002" and get_version(sqlite_log, "v0003").state is VersionState.CANDIDATE:
            set_version_state(sqlite_log, "v0003", VersionState.LIVE, "by hand")
        return 0.9 if version == "v0002" else 0.1

    plays(promoted_meanwhile)
    pipeline(sqlite_log, ("gate", {"version": "v0002"} | canary))
    one = work(sqlite_log, settings, gateway)
    for _ in range(2):  # the second time its decision is recorded
        with pytest.raises(JobRefused, match="v0003 went live instead of v0001 meanwhile: hold v0002 against it anew"):
            run_job(one)
        one = again(sqlite_log, one)
    assert gateway.told == ["stage v0002"]
    assert get_version(sqlite_log, "v0003").state is VersionState.LIVE
    assert get_version(sqlite_log, "v0002").state is VersionState.CANDIDATE


def test_a_decision_is_not_taken_for_another_gates(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, plays: Callable[[Rewards], list[tuple[str, int]]]
) -> None:
    """It passed without being promoted; since then another version went live, against which it is no better."""
    versions(sqlite_log, settings.home / "versions", "LCC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(4)])
    played = plays(lambda version, _: {"v0001": 0.1, "v0002": 0.5, "v0003": 0.9}[version])
    pipeline(sqlite_log, ("gate", {"version": "v0002", "promote": False}))
    assert done(sqlite_log, work(sqlite_log, settings, gateway))["passed"]
    pipeline(sqlite_log, ("gate", {"version": "v0002", "min_effect": 0.6, "promote": False}))
    first = work(sqlite_log, settings, gateway)
    set_version_state(sqlite_log, "v0003", VersionState.LIVE, "by hand")
    decided = done(sqlite_log, first)
    assert decided["passed"] is False and "not better than the live version: -40.0 points" in decided["reason"]
    assert len(played) == 4 and get_version(sqlite_log, "v0002").state is VersionState.REFUSED
    assert [decision.live for decision in list_gate_decisions(sqlite_log)] == ["v0001", "v0003"]


def test_a_gate_that_could_not_decide_is_tried_again(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, plays: Callable[[Rewards], list[tuple[str, int]]]
) -> None:
    """The judge is down while the candidate is judged: it is neither live nor refused, and comes to its decision."""
    versions(sqlite_log, settings.home / "versions", "LC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(6)])
    plays(lambda version, scenario: 0.1 if version == "v0001" else 0.9 if scenario.name in "s0 s1 s2 s3" else None)
    pipeline(sqlite_log, ("gate", {"version": "v0002"}))
    one = work(sqlite_log, settings, gateway)
    with pytest.raises(ServerError, match=r"could not decide on v0002, which stays a candidate: only 4 of 6 scen"):
        run_job(one)
    assert get_version(sqlite_log, "v0002").state is VersionState.CANDIDATE
    assert gateway.told == ["stage v0002", "stage v0001"]
    assert [decision.outcome for decision in list_gate_decisions(sqlite_log)] == ["undecided"]
    plays(lambda version, _: 0.1 if version == "v0001" else 0.9)
    assert run_job(again(sqlite_log, one))["passed"]
    assert get_version(sqlite_log, "v0002").state is VersionState.LIVE


def test_a_gate_on_fewer_scenarios_than_it_could_decide_on_is_refused(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway
) -> None:
    versions(sqlite_log, settings.home / "versions", "LC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(3)])
    pipeline(sqlite_log, ("gate", {"version": "v0002"}))
    with pytest.raises(JobRefused, match="holds 3 scenarios of split validation, and a gate needs 4"):
        run_job(work(sqlite_log, settings, gateway))
    assert gateway.told == []


def test_a_gate_that_goes_on_under_other_settings_decides_anew(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, plays: Callable[[Rewards], list[tuple[str, int]]]
) -> None:
    versions(sqlite_log, settings.home / "versions", "LC")
    add_scenarios(sqlite_log, [a_scenario(f"s{n}", split=Split.VALIDATION) for n in range(4)])
    plays(lambda version, _: 0.5 if version == "v0002" else 0.1)
    pipeline(sqlite_log, ("gate", {"version": "v0002", "promote": False}))
    one = work(sqlite_log, settings, gateway)
    assert run_job(one)["passed"]
    assert run_job(again(sqlite_log, one))["passed"] and len(list_gate_decisions(sqlite_log)) == 1
    stricter = settings.model_copy(update={"loop": settings.loop.model_copy(update={"gate_min_effect": 0.6})})
    assert run_job(replace(again(sqlite_log, one), settings=stricter))["passed"] is False
    assert get_version(sqlite_log, "v0002").state is VersionState.REFUSED
    assert run_job(again(sqlite_log, one))["passed"] is False, "what has followed from a decision stays"
    assert len(list_gate_decisions(sqlite_log)) == 2


def test_a_run_is_trained_on_what_no_run_has_used_and_goes_on_where_it_was_stopped(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, tmp_path: Path
) -> None:
    model_dir = write_tiny_model(tmp_path / "tiny")
    add_version(sqlite_log, "v0001", parent=None, path=str(model_dir), files={})
    set_version_state(sqlite_log, "v0001", VersionState.LIVE, "test")
    logged_groups(sqlite_log, model_dir, "used", [1.0, 0.0])
    other = start_run(sqlite_log, "other", RunKind.GRPO, "v0001", 1, {})
    add_run_trajectories(sqlite_log, other, {"used-0-0": 1.0, "used-1-1": -1.0})
    logged_groups(sqlite_log, model_dir, "fresh", [1.0, 0.0])
    pipeline(sqlite_log, ("train", {"checkpoint_every": 1}), ("gate", {}))
    stopped = work(sqlite_log, settings, gateway)

    class StopsAfterOne(JobProgress):
        steps = 0

        def update(self, stage: Stage, share: float, detail: str) -> None:
            self.steps += 1
            if self.steps == 2:
                raise StopRequested

    with pytest.raises(StopRequested):
        run_job(replace(stopped, stage=Stage(StopsAfterOne(lambda: False), "job", "job")))
    assert get_run(sqlite_log, stopped.job.name).status == "failed"

    class Listens(JobProgress):
        said: list[str]

        def update(self, stage: Stage, share: float, detail: str) -> None:
            self.said.append(detail)

    listening = Listens(lambda: False)
    listening.said = []
    resumed = replace(again(sqlite_log, stopped), stage=Stage(listening, "job", "job"))
    assert run_job(resumed) == {"version": "v0002", "base": "v0001"}
    assert [said.split(",")[0] for said in listening.said] == ["step 2 of 2", "v0002: 2 steps on 2 groups"]
    run = get_run(sqlite_log, stopped.job.name)
    assert run.status == "done" and run_trajectories(sqlite_log, run.id).keys() == {
        f"fresh-{group}-{member}" for group in range(2) for member in range(2)
    }
    (use,) = uses_of(sqlite_log, "fresh-0-1")
    assert (use.advantage, use.level, use.by_step) == (-0.5, "trajectory", ((0, 0, -0.5),))
    assert done(sqlite_log, again(sqlite_log, stopped)) == {"version": "v0002"}, "killed before its end was written"
    assert not list((settings.home / "jobs").iterdir()), "checkpoints are removed"
    probe = read_probe(Path(get_version(sqlite_log, "v0002").path))
    assert probe is not None and len(probe.ids) == 2, "of one's own model there is none, so of what was trained on"
    gate = work(sqlite_log, settings, gateway)
    with pytest.raises(JobRefused, match="no scenario of split validation"):
        run_job(gate)


def test_rollouts_that_could_not_be_trained_on_are_refused(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway
) -> None:
    versions(sqlite_log, settings.home / "versions", "L")
    add_scenarios(sqlite_log, [a_scenario("s")])
    pipeline(sqlite_log, ("rollout", {}))
    cold = settings.model_copy(update={"rollout": settings.rollout.model_copy(update={"temperature": 0.0})})
    with pytest.raises(TrainingFailed, match=r"rollout\.temperature = 0: .* recorded as not to be trained on"):
        run_job(work(sqlite_log, cold, gateway))
    assert list_trajectories(sqlite_log, limit=None) == []


def test_a_refused_run_is_recorded_as_failed_and_lets_its_base_go(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway, tmp_path: Path
) -> None:
    model_dir = write_tiny_model(tmp_path / "tiny")
    add_version(sqlite_log, "v0001", parent=None, path=str(model_dir), files={})
    set_version_state(sqlite_log, "v0001", VersionState.LIVE, "test")
    logged_groups(sqlite_log, model_dir, "played", [1.0, 0.0])
    pipeline(sqlite_log, ("train", {}))
    one = work(sqlite_log, settings, gateway)
    stopped = replace(one, stage=work(sqlite_log, settings, gateway, one.job, stop=True).stage)
    with pytest.raises(StopRequested):
        run_job(stopped)
    add_rewards(sqlite_log, [Reward(f"played-0-{n}", None, (None,), None, 1) for n in (0, 1)])
    with pytest.raises(TrainingFailed, match="2 of 4 trajectories"):
        run_job(again(sqlite_log, one))
    run = get_run(sqlite_log, one.job.name)
    assert run.status == "failed" and "excluded" in str(run.error)


def test_a_run_without_anything_to_learn_makes_no_candidate_and_its_gate_has_nothing_to_do(
    sqlite_log: Log, settings: Settings, gateway: StandInGateway
) -> None:
    versions(sqlite_log, settings.home / "versions", "L")
    pipeline(sqlite_log, ("train", {}), ("gate", {}))
    assert done(sqlite_log, work(sqlite_log, settings, gateway))["version"] is None
    result = done(sqlite_log, work(sqlite_log, settings, gateway))
    assert result == {"passed": None, "reason": "the run made no candidate"}
    assert gateway.told == []


def test_the_backlog_is_what_was_played_least_and_judged_never(sqlite_log: Log) -> None:
    scenarios = [a_scenario(f"s{n}") for n in range(3)]
    add_scenarios(sqlite_log, scenarios)
    start(sqlite_log, "a", "b", scenario=scenarios[0], batch="x")
    start(sqlite_log, "c", scenario=scenarios[1], batch="y")
    start(sqlite_log, "evaluated", scenario=scenarios[2], origin=Origin.EVALUATION)
    order = least_played(sqlite_log, split=Split.TRAIN, origin=Origin.ROLLOUT, count=9)
    assert order == [scenarios[n].hash for n in (2, 1, 0)]
    assert least_played(sqlite_log, split=Split.TEST, count=9) == []
    for name, stop in (("a", StopReason.COMPLETED), ("b", StopReason.FAILED), ("c", StopReason.MAX_STEPS)):
        end_trajectory(sqlite_log, name, stop)
    assert unjudged(sqlite_log, batches=None, limit=9) == ["a", "c"]
    assert unjudged(sqlite_log, batches=["y"], limit=9) == ["c"]
    add_rewards(sqlite_log, [Reward("a", None, (None,), None, 1), Reward("c", 1.0, (1.0,), True, 0)])
    assert unjudged(sqlite_log, batches=None, limit=9) == []
    assert unjudged(sqlite_log, batches=None, limit=9, retry_unscored=True) == ["a"]
    start(sqlite_log, "chat", scenario=scenarios[0], origin=Origin.CHAT)
    start(sqlite_log, "running", scenario=scenarios[0])
    assert unjudged(sqlite_log, batches=None, limit=9) == ["chat"], "an open chat, as `checkloop judge` does"


class _Answers(BaseHTTPRequestHandler):
    """A gateway's admin routes, from `server.document`; what is staged becomes what is loaded."""

    def do_GET(self) -> None:
        self._send(self.server.document if self.path == "/admin/versions" else {})  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        version = self.path.rpartition("/")[2]
        self.server.document["loaded"] = {"live": version}  # type: ignore[attr-defined]
        self._send({"accepted": version != "v0003", "proof": {"reason": "other logprobs"}})

    def _send(self, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""


@pytest.fixture
def answering(settings: Settings) -> Iterator[tuple[Settings, dict[str, Any]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.document = {"loaded": {}, "states": {}}  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    gateway = settings.gateway.model_copy(update={"port": server.server_address[1]})
    yield settings.model_copy(update={"gateway": gateway}), server.document  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_the_gateway_that_runs_is_used_and_left_with_the_live_version(
    sqlite_log: Log, answering: tuple[Settings, dict[str, Any]]
) -> None:
    settings, document = answering
    versions(sqlite_log, settings.home / "versions", "LCC")
    document |= {"loaded": {"live": "v0002"}, "states": {f"v000{n}": "" for n in (1, 2, 3)}}
    with JobGateway(sqlite_log, settings) as gateway:
        gateway.open()
        assert document["loaded"] == {"live": "v0001"}, "a job that was killed had left another version there"
        with gateway.holding("v0002"):
            assert document["loaded"] == {"live": "v0002"}
        assert document["loaded"] == {"live": "v0001"}
        with pytest.raises(ServerError, match="does not answer with v0003"), gateway.holding("v0003"):
            raise AssertionError("it failed its proof")
        gateway.open().stage("v0002")
    assert document["loaded"] == {"live": "v0001"}


def test_the_gateway_of_another_log_is_not_used(sqlite_log: Log, answering: tuple[Settings, dict[str, Any]]) -> None:
    settings, document = answering
    versions(sqlite_log, settings.home / "versions", "L")
    document |= {"states": {"v0009": "live"}}
    with pytest.raises(ServerError, match="does not know v0001: it belongs to another log"):
        JobGateway(sqlite_log, settings).open()


def test_what_went_wrong_is_named_by_the_boundary_that_it_crossed() -> None:
    full = TrainingFailed("could not write")
    full.__cause__ = OSError(28, "No space left on device")
    request = httpx.Request("GET", "http://x")
    expected = {
        TrainingFailed("too much is excluded"): ExitReason.REFUSED,
        full: ExitReason.MACHINE,
        ServerError("503"): ExitReason.SERVER,
        httpx.ConnectError("no", request=request): ExitReason.SERVER,
        openai.APIConnectionError(request=request): ExitReason.SERVER,
        LogError("locked"): ExitReason.LOG,
        OSError("no such file"): ExitReason.MACHINE,
        MemoryError(): ExitReason.MEMORY,
        KeyError("x"): ExitReason.MISTAKE,
    }
    assert {error: reason_of(error) for error in expected} == expected


def test_rollouts_judging_and_evaluation_on_the_real_server(serving: Serving) -> None:
    """A job that is stopped keeps what it played; whoever takes it over plays the rest, and nothing twice."""
    short = serving.settings.rollout.model_copy(update={"max_tokens_per_step": 8})
    settings = serving.settings.model_copy(update={"rollout": short})
    sets = small_sets()
    add_scenarios(serving.log, [*sets.pool[:2], *sets.test[:2]])
    live = live_version(serving.log)
    assert live is not None
    pipeline(
        serving.log,
        ("rollout", {"scenarios": 2, "group_size": 2, "domain": "colours"}),
        ("judge", {}),
        ("evaluate", {"scenarios": 1, "domain": "colours"}),
    )
    with JobGateway(serving.log, settings) as gateway:
        one = work(serving.log, settings, gateway)
        with pytest.raises(StopRequested):
            run_job(replace(one, stage=work(serving.log, settings, gateway, one.job, stop=True).stage))
        kept = [t for t in list_trajectories(serving.log, batch=one.job.name, limit=None) if t.stop_reason]
        assert kept, "it stopped at the end of a dialogue"
        first = run_job(again(serving.log, one))
        assert (first["groups"], first["dialogues"], first["judged"], first["version"]) == (2, 4, 4, live.name)
        assert 0.0 <= first["reward"] <= 1.0
        played = {t.id: t.created_at for t in list_trajectories(serving.log, batch=one.job.name, limit=None)}
        assert len(played) == 4 and {t.id for t in kept} <= played.keys()
        assert done(serving.log, again(serving.log, one)) == first
        assert {t.id: t.created_at for t in list_trajectories(serving.log, batch=one.job.name, limit=None)} == played
        assert done(serving.log, work(serving.log, settings, gateway))["judged"] == 0, "all have a reward"
        evaluated = done(serving.log, work(serving.log, settings, gateway))
        assert (evaluated["dialogues"], evaluated["version"]) == (1, live.name)
