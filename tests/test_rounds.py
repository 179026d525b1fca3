"""Which version a round is played with, which a gate holds against the live one, which is live: without servers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.vllm_client import ServerError
from env_sim.rollouts import Played, RolloutPlan
from store.database import Log, LogError
from store.runs import finish_run, get_run, start_run
from store.scenarios import add_scenarios
from store.settings import Settings, load_settings
from store.stages import finish_stage, list_loops, open_loop, start_stage
from store.traffic import pin_version
from store.trajectories import end_trajectory
from store.versions import add_version, get_version, list_gate_decisions, live_version, set_version_state
from store.vocabulary import JobStatus, RunKind, StopReason, VersionState
from tests.rehearsed_loop import BETTER, UNSURE, WORSE, Rehearsal
from tests.store_examples import a_scenario, start
from train.errors import TrainingFailed
from train.evaluation import Outcome
from train.loop import ScenarioSets, TrainingLoop
from train.online import OnlineRun
from train.progress import Stage, StageProgress
from train.rounds import Rounds


@pytest.mark.parametrize(
    "verdicts, barren, last, did",
    [
        (
            [BETTER, BETTER],
            set(),
            "v5",
            ["play v1", "play v2", "gate v3 against v1", "play v3", "play v4", "gate v5 against v3"],
        ),
        (
            [UNSURE, BETTER],
            set(),
            "v5",
            ["play v1", "play v2", "gate v3 against v1", "play v3", "play v4", "gate v5 against v1"],
        ),
        (
            [WORSE, UNSURE],
            set(),
            "v1",
            ["play v1", "play v2", "gate v3 against v1", "play v1", "play v4", "gate v5 against v1"],
        ),
        # Rounds that find nothing to learn make no version; what an earlier one made still has its gate.
        ([BETTER], {2, 3, 4}, "v2", ["play v1", "play v2", "gate v2 against v1", "play v2", "play v2"]),
        # What a gate refused is not held again where nothing was learnt since: refused versions do not go live.
        ([UNSURE], {3, 4}, "v1", ["play v1", "play v2", "gate v3 against v1", "play v3", "play v3"]),
    ],
)
def test_rounds_go_on_from_the_newest_version_and_only_gates_make_one_live(
    sqlite_log: Log, tmp_path: Path, verdicts: list[dict[str, Any]], barren: set[int], last: str, did: list[str]
) -> None:
    settings = load_settings(home=tmp_path, loop={"rounds": 4, "gate_every": 2}, grpo={"trained_layers": 0})
    loop = Rehearsal(sqlite_log, settings, list(verdicts), barren)
    outcome = loop.run()
    assert (outcome.first_version, outcome.last_version) == ("v1", last)
    assert loop.did == did


def test_a_last_round_that_is_not_the_gate_s_turn_has_one_all_the_same(sqlite_log: Log, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, loop={"rounds": 3, "gate_every": 2}, grpo={"trained_layers": 0})
    loop = Rehearsal(sqlite_log, settings, [BETTER, BETTER], set())
    assert loop.run().last_version == "v4"
    assert settings.loop.gates == 2
    assert loop.did[-1] == "gate v4 against v3"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rollout": {"temperature": 0.7}}, r"rollout\.temperature = 0\.7: .* played for nothing"),
        ({"selection": {"domains": ["travel"]}}, r"selection\.domains = \('travel',\) chooses among groups of the log"),
        ({"selection": {"max_age": 2}}, r"selection\.max_age = 2 .* those that it plays itself"),
        ({"selection": {"split": "validation"}}, r"selection\.split = "),
    ],
)
def test_what_a_loop_or_an_online_run_cannot_honour_is_refused_before_anything_is_played(
    sqlite_log: Log, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    settings = load_settings(home=tmp_path, **changed)
    progress = StageProgress({}, Console(quiet=True))
    with pytest.raises(TrainingFailed, match=message):
        Rehearsal(sqlite_log, settings, [], set()).run()
    with pytest.raises(TrainingFailed, match=message):
        OnlineRun(sqlite_log, settings, name="online-1", seed=1, progress=progress).run()
    assert list_loops(sqlite_log) == []


class GateAlone(TrainingLoop):
    """Its gate and swap, without servers: a dialogue of a version earns what `worth` says."""

    worth: Mapping[str, float] = {}
    promoted: tuple[str, ...] = ()

    def _play_once(self, stage: Stage, scenarios: Any, batch: str, version: str, settings: Any) -> Any:
        assert batch.endswith(f"/validation/{version}")
        return {f"s{n}": [Outcome(self.worth[version], False)] for n in range(4)}

    def _serve(self, version: str) -> dict[str, Any]:
        return {"accepted": True}

    def _open_gateway(self) -> Any:
        return self

    def promote(self, version: str, reason: str) -> dict[str, Any]:
        self.promoted += (version,)
        return {"accepted": True, "drain_s": 0.0, "reload_s": 0.0}


@pytest.fixture
def taken_over(sqlite_log: Log, tmp_path: Path) -> GateAlone:
    """A loop whose v0001 was live when it was stopped; another one's v0002 is live now. v0003 is its candidate."""
    for name in ("v0001", "v0002", "v0003", "v0004"):
        (tmp_path / name).mkdir()
        add_version(sqlite_log, name, parent=None, path=str(tmp_path / name), files={})
    for name in ("v0001", "v0002"):
        set_version_state(sqlite_log, name, VersionState.LIVE, "its loop")
    settings, progress = load_settings(home=tmp_path), StageProgress({}, Console(quiet=True))
    return GateAlone(sqlite_log, settings, ScenarioSets([], [], [], []), name="old", seed=1, progress=progress)


@pytest.mark.parametrize(("worth", "passed"), [(0.5, False), (0.9, True)])
def test_a_loop_that_goes_on_holds_its_candidate_against_what_another_loop_made_live(
    sqlite_log: Log, taken_over: GateAlone, worth: float, passed: bool
) -> None:
    """0.5 is more than the 0.2 of its own first version, and less than the 0.8 of the one that it would replace."""
    taken_over.worth = {"v0001": 0.2, "v0002": 0.8, "v0003": worth}
    stage = a_stage()
    decision = taken_over._gate(stage, 1, "v0001", "v0003")
    assert (decision["passed"], decision["against"]) == (passed, "v0002")
    assert "against v0002, which went live meanwhile" in stage.detail
    (recorded,) = list_gate_decisions(sqlite_log)
    assert (recorded.candidate, recorded.live, recorded.passed) == ("v0003", "v0002", passed)


def test_a_decision_that_is_out_of_date_makes_nothing_live(sqlite_log: Log, taken_over: GateAlone) -> None:
    """Stopped between gate and swap: meanwhile another version went live, or a person refused this one."""
    passed = {"passed": True, "reason": "better", "against": "v0002"}
    assert taken_over._swap(a_stage(), "v0003", passed)["accepted"] and taken_over.promoted == ("v0003",)
    set_version_state(sqlite_log, "v0004", VersionState.LIVE, "a third loop")
    late = taken_over._swap(a_stage(), "v0003", passed)
    assert not late["accepted"] and "v0004 went live since its gate" in late["reason"]
    set_version_state(sqlite_log, "v0003", VersionState.REFUSED, "a person")
    refused = taken_over._swap(a_stage(), "v0003", passed | {"against": "v0004"})
    assert not refused["accepted"] and "refused since its gate" in refused["reason"]
    assert taken_over.promoted == ("v0003",)
    live = live_version(sqlite_log)
    assert live is not None and live.name == "v0004"


def bare_loop(log: Log, tmp_path: Path) -> TrainingLoop:
    progress = StageProgress({}, Console(quiet=True))
    settings = load_settings(home=tmp_path)
    return TrainingLoop(log, settings, ScenarioSets([], [], [], []), name="bare", seed=1, progress=progress)


def a_stage() -> Stage:
    return Stage(StageProgress({}, Console(quiet=True)), "stage", "")


def test_a_cold_start_that_fails_is_recorded_and_goes_on(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise TrainingFailed("the disk is full")

    monkeypatch.setattr("train.loop.load_renderer", refuse)
    loop = bare_loop(sqlite_log, tmp_path)
    with pytest.raises(TrainingFailed, match="disk is full"):
        loop._cold_start(a_stage(), tmp_path)
    failed = get_run(sqlite_log, "bare/cold-start")
    assert (failed.status, failed.error) == (JobStatus.FAILED, "TrainingFailed: the disk is full")
    add_version(sqlite_log, "v0001", parent=None, path=str(tmp_path), files={}, run_id=failed.id)
    assert loop._cold_start(a_stage(), tmp_path) == {"version": "v0001"}, "registered, and killed before it said so"
    assert get_run(sqlite_log, "bare/cold-start").status is JobStatus.DONE
    assert loop._cold_start(a_stage(), tmp_path) == {"version": "v0001"}, "killed before the stage's end was written"


def test_a_round_that_was_trained_before_a_kill_is_not_trained_again(sqlite_log: Log, tmp_path: Path) -> None:
    run_id = start_run(sqlite_log, "bare/round-1", RunKind.GRPO, "v0001", 1, {})
    add_version(sqlite_log, "v0002", parent=None, path=str(tmp_path), files={}, run_id=run_id)
    finish_run(sqlite_log, run_id, JobStatus.DONE)
    rounds = Rounds(sqlite_log, load_settings(home=tmp_path), name="bare", seed=1)
    assert rounds.train(a_stage(), 1, "v0001") == "v0002"


def test_adam_goes_on_from_the_version_that_training_goes_on_from(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2 learns nothing, so round 3 goes on from round 1's version; round 4's branch is dropped."""
    folder = tmp_path / "loops" / "bare"
    began: list[str | None] = []
    barren = {2}

    def train(log: Log, settings: Settings, load: Any, files: Any, *_: Any, name: str, base: str, **__: Any) -> Any:
        n = int(name.rpartition("-")[2])
        began.append(files.optimizer_in.name if files.optimizer_in else None)
        run_id = start_run(log, name, RunKind.GRPO, base, 1, {})
        if n not in barren:
            files.optimizer_out.write_bytes(b"moments")
            add_version(log, f"made-{n}", parent=None, path=str(tmp_path), files={}, run_id=run_id)
        finish_run(log, run_id, JobStatus.DONE)
        return None if n in barren else f"made-{n}"

    monkeypatch.setattr("train.rounds.train_candidate", train)
    monkeypatch.setattr("train.rounds.give_back_trainer", lambda: None)
    add_version(sqlite_log, "first", parent=None, path=str(tmp_path), files={})
    set_version_state(sqlite_log, "first", VersionState.LIVE, "cold start")
    rounds = Rounds(sqlite_log, load_settings(home=tmp_path), name="bare", seed=1)
    assert rounds.train(a_stage(), 1, "first") == "made-1"
    assert rounds.train(a_stage(), 2, "made-1") is None
    assert rounds.train(a_stage(), 3, "made-1") == "made-3"
    assert began == [None, "optimizer-1.pt", "optimizer-1.pt"]
    assert [file.name for file in folder.glob("*.pt")] == ["optimizer-3.pt"], "280 MB each: no more than is needed"
    set_version_state(sqlite_log, "made-3", VersionState.LIVE, "its gate")
    rounds.train(a_stage(), 4, "made-3")
    rounds.train(a_stage(), 5, "made-3")
    rounds.train(a_stage(), 6, "made-5")
    assert began[3:] == ["optimizer-3.pt", "optimizer-3.pt", "optimizer-5.pt"]
    assert sorted(file.name for file in folder.glob("*.pt")) == ["optimizer-3.pt", "optimizer-6.pt"]


def test_a_round_of_which_nothing_could_be_played_names_the_outage(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: no mean of nothing, no stage that is done; played again, what failed is played anew."""
    scenarios = [a_scenario(f"s{n}") for n in range(3)]
    add_scenarios(sqlite_log, scenarios)
    troubles = ["vLLM died", "the gateway is away", "vLLM died"]
    tries: list[int] = []

    async def fails(log: Log, plans: Sequence[RolloutPlan], **_: Any) -> list[Played]:
        tries.append(len(plans))
        for number, plan in enumerate(plans):
            start(
                log, plan.trajectory_id, scenario=plan.scenario, batch=plan.batch, version=plan.version,
                seed=plan.seed, group_id=plan.group_id,
            )  # fmt: skip
            end_trajectory(log, plan.trajectory_id, StopReason.FAILED, troubles[number % 3])
        return [Played(plan.trajectory_id, StopReason.FAILED, "it failed") for plan in plans]

    monkeypatch.setattr("train.evaluation.play", fails)
    settings = load_settings(home=tmp_path, rollout={"group_size": 2})
    rounds = Rounds(sqlite_log, settings, name="bare", seed=1)
    told = r"not one of the 6 dialogues of bare/round-1 could be played and judged; most often \(4 times\): vLLM died"
    with pytest.raises(ServerError, match=told):
        rounds.play(a_stage(), 1, scenarios, "v0001", lambda: None)
    with pytest.raises(ServerError, match="not one of the 12 dialogues"):
        rounds.play(a_stage(), 1, scenarios, "v0001", lambda: None)
    assert tries == [6, 6]


def test_what_did_not_go_live_leaves_no_weights(sqlite_log: Log, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, loop={"rounds": 3, "gate_every": 2}, grpo={"trained_layers": 0})
    loop = TrainingLoop(
        sqlite_log,
        settings,
        ScenarioSets([], [], [], []),
        name="small",
        seed=1,
        progress=StageProgress({}, Console(quiet=True)),
    )
    open_loop(sqlite_log, "small", 1, {})
    places = {name: tmp_path / "versions" / name for name in ("v0001", "v0002", "v0003", "v0004")}
    for name, place in places.items():
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"weights")
        add_version(sqlite_log, name, parent=None, path=str(place), files={})
    for n in (1, 2, 3):
        start_stage(sqlite_log, "small", f"round-{n}/train")
        finish_stage(sqlite_log, "small", f"round-{n}/train", {"version": f"v000{n + 1}"}, 1.0)
    set_version_state(sqlite_log, "v0003", VersionState.LIVE, "its gate")
    moments = tmp_path / "loops" / "small" / "optimizer-3.pt"
    moments.parent.mkdir(parents=True)
    moments.write_bytes(b"moments")

    pin_version(sqlite_log, "v0004", "ann")
    assert loop._prune(Stage(StageProgress({}, Console(quiet=True)), "prune", ""))["versions"] == ["v0002"]
    assert [name for name, place in places.items() if place.is_dir()] == ["v0001", "v0003", "v0004"]
    assert get_version(sqlite_log, "v0002").state is VersionState.REFUSED and not moments.exists()


@pytest.mark.parametrize("name", ["..", "/", ".", "a/../../b", "", "a\n"])
def test_nobody_makes_a_loop_s_folder_of_another_one(sqlite_log: Log, tmp_path: Path, name: str) -> None:
    """What a loop's folder holds is removed with it, and before each of its runs."""
    settings, progress = load_settings(home=tmp_path), StageProgress({}, Console(quiet=True))
    sets = ScenarioSets([], [], [], [])
    for make in (
        lambda: Rounds(sqlite_log, settings, name=name, seed=1),
        lambda: TrainingLoop(sqlite_log, settings, sets, name=name, seed=1, progress=progress),
        lambda: OnlineRun(sqlite_log, settings, name=name, seed=1, progress=progress),
    ):
        with pytest.raises(TrainingFailed, match=r"is no name for .*1 to 48 letters"):
            make()


JUDGE = {"base_url": "http://127.0.0.1:9/v1", "model": "large"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"judge": JUDGE | {"model": "small"}}, r'judge\.model: "large" then, "small" now'),
        ({"judge": JUDGE | {"temperature": 0.7}}, r"judge\.temperature: null then, 0\.7 now"),
        ({"judging": {"mode": "item"}}, r'judging: null then, {"mode":"item"} now'),
        ({"selection": {"min_spread": 0.1}}, r'selection: null then, {"min_spread":0\.1} now'),
        ({"simulator": JUDGE}, r"simulator: null then, "),
        ({"server": {"max_model_len": 4096}}, r"server: null then, "),
        ({"server": {"dtype": "float32"}}, r"server: null then, "),
    ],
)
def test_it_refuses_to_go_on_with_what_would_be_played_or_judged_otherwise(
    sqlite_log: Log, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    of_all: dict[str, Any] = {"home": tmp_path, "judge": JUDGE, "loop": {"rounds": 1}, "grpo": {"trained_layers": 0}}
    Rehearsal(sqlite_log, load_settings(**of_all), [BETTER], set()).run()
    with pytest.raises(LogError, match=said):
        Rehearsal(sqlite_log, load_settings(**of_all | changed), [BETTER], set()).run()
    elsewhere = {
        "judge": JUDGE | {"base_url": "http://127.0.0.1:10/v1", "max_concurrency": 2},
        "server": {"port": 8200},
    }
    Rehearsal(sqlite_log, load_settings(**of_all | elsewhere), [], set()).run()
