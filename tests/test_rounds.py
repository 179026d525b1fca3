"""Which version a round is played with, which a gate holds against the live one, which is live: without servers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.vllm_client import ServerError
from env_sim.rollouts import RolloutPlan
from store.database import Log
from store.runs import finish_run, get_run, start_run
from store.scenarios import add_scenarios
from store.settings import Settings, load_settings
from store.stages import finish_stage, list_loops, open_loop, start_stage
from store.traffic import pin_version
from store.trajectories import end_trajectory
from store.versions import add_version, get_version, set_version_state
from store.vocabulary import JobStatus, RunKind, StopReason, VersionState
from tests.store_examples import a_scenario, start
from train.errors import TrainingFailed
from train.evaluation import Outcome
from train.loop import ScenarioSets, TrainingLoop
from train.online import OnlineRun
from train.progress import Stage, StageProgress
from train.rounds import Rounds

BETTER = {"passed": True, "reason": "", "high": 0.3}
UNSURE = {"passed": False, "reason": "", "high": 0.1}
WORSE = {"passed": False, "reason": "", "high": -0.1}


class Rehearsal(TrainingLoop):
    """A loop whose stages only say what they were asked to do; round n makes version v<n + 1>."""

    def __init__(self, log: Log, settings: Settings, verdicts: list[dict[str, Any]], barren: set[int]) -> None:
        progress = StageProgress({}, Console(quiet=True))
        super().__init__(log, settings, ScenarioSets([], [], [], []), name="rehearsal", seed=1, progress=progress)
        self.did: list[str] = []
        self._verdicts = verdicts
        self._barren = barren

    def _prepare_model(self, stage: Stage) -> dict[str, Any]:
        return {"path": "."}

    def _cold_start(self, stage: Stage, model: Path) -> dict[str, Any]:
        return {"version": "v1"}

    def _go_live(self, version: str) -> None:
        return None

    def _evaluation(self, key: str, title: str, scenarios: Any, version: str) -> dict[str, list[Outcome]]:
        return {}

    def _play_groups(self, stage: Stage, n: int, scenarios: Any, version: str) -> dict[str, Any]:
        self.did.append(f"play {version}")
        return {}

    def _train(self, stage: Stage, n: int, current: str) -> dict[str, Any]:
        return {"version": None if n in self._barren else f"v{n + 1}"}

    def _load(self, stage: Stage, candidate: str) -> dict[str, Any]:
        return {"accepted": True}

    def _gate(self, stage: Stage, n: int, current: str, candidate: str) -> dict[str, Any]:
        self.did.append(f"gate {candidate} against {current}")
        return self._verdicts.pop(0)

    def _swap(self, stage: Stage, candidate: str, reason: str) -> dict[str, Any]:
        return {"accepted": True}

    def _prune(self, stage: Stage) -> dict[str, Any]:
        return {}


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


def test_a_round_of_which_nothing_could_be_played_names_the_outage(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: no mean of nothing, no stage that is done; played again, what failed is played anew."""
    scenarios = [a_scenario(f"s{n}") for n in range(3)]
    add_scenarios(sqlite_log, scenarios)
    troubles = ["vLLM died", "the gateway is away", "vLLM died"]
    tries: list[int] = []

    async def fails(log: Log, plans: Sequence[RolloutPlan], **_: Any) -> None:
        tries.append(len(plans))
        for number, plan in enumerate(plans):
            start(
                log, plan.trajectory_id, scenario=plan.scenario, batch=plan.batch, version=plan.version,
                seed=plan.seed, group_id=plan.group_id,
            )  # fmt: skip
            end_trajectory(log, plan.trajectory_id, StopReason.FAILED, troubles[number % 3])

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
