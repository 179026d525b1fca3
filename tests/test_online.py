"""Online runs without servers: which version plays which round, what a stop leaves, what is refused."""

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from env_sim.scenario_generator import generate_scenarios
from store.database import Log, LogError
from store.scenarios import add_scenarios
from store.settings import Settings, load_settings
from store.stages import list_stages
from store.versions import add_version, set_version_state
from store.vocabulary import Split, VersionState
from train.errors import TrainingFailed
from train.held_out import Look, why_stop
from train.online import OnlineRun, online_run_name
from train.progress import Stage, StageProgress

ROUNDS = 4


class Rehearsal(OnlineRun):
    """Stages only say what they were asked to do; round n makes version v<n>. Training waits for what may be played
    meanwhile, so that the rounds overlap as far as they are allowed to."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        barren: Collection[int] = (),
        fatal: str = "",
        worth: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(log, settings, name="online-1", seed=1, progress=StageProgress({}, Console(quiet=True)))
        self.played: dict[int, str] = {}
        self.trained: dict[int, str] = {}
        self.scenarios: dict[int, list[str]] = {}
        self.looked: dict[int, str] = {}
        self.held_out: list[list[str]] = []
        self._barren, self._fatal, self._worth = barren, fatal, worth or {}
        self._rounds_wanted = settings.online.rounds
        self._ahead = settings.online.max_staleness
        self._began = {n: threading.Event() for n in range(1, self._rounds_wanted + 1)}

    def _play(self, n: int, *planned: Any) -> None:
        try:
            super()._play(n, *planned)
        finally:
            self._began[n].set()

    def _play_groups(self, stage: Stage, n: int, scenarios: Any, version: str) -> dict[str, Any]:
        self.played[n] = version
        self.scenarios[n] = [one.hash for one in scenarios]
        self._began[n].set()
        if self._fatal == f"play {n}":
            raise TrainingFailed("the simulator is gone")
        return {"reward": 0.25 * n, "version": version}

    def _look_at(self, stage: Stage, n: int, scenarios: Any, version: str) -> dict[str, float | None]:
        self.looked[n] = version
        self.held_out.append([one.hash for one in scenarios])
        worth = self._worth.get(version, 0.5)
        return {one.hash: worth + 0.01 * (place % 3) for place, one in enumerate(scenarios)}

    def _train(self, stage: Stage, n: int, base: str) -> dict[str, Any]:
        self.trained[n] = base
        assert self._began[min(n + self._ahead, self._rounds_wanted)].wait(30)
        if self._fatal == f"train {n}":
            raise TrainingFailed("the disk is full")
        return {"version": None if n in self._barren else f"v{n}"}

    def _work(self) -> Any:
        class Nothing:
            @staticmethod
            def prune(stage: Stage, versions: list[str]) -> dict[str, Any]:
                return {"versions": versions}

        return Nothing()


def _settings(home: Path, **online: Any) -> Settings:
    return load_settings(home=home, online={"rounds": ROUNDS, "scenarios_per_round": 3} | online)


@pytest.fixture
def ready(sqlite_log: Log) -> Log:
    """A log with a live version and training scenarios for the rounds."""
    add_scenarios(sqlite_log, generate_scenarios(Split.TRAIN, 3 * ROUNDS, seed=5))
    add_version(sqlite_log, "v0", parent=None, path="/nowhere", files={})
    set_version_state(sqlite_log, "v0", VersionState.LIVE, "first")
    return sqlite_log


@pytest.mark.parametrize(
    "staleness, played",
    [
        (0, ["v0", "v1", "v2", "v3"]),  # in turns: each round by the newest
        (1, ["v0", "v0", "v1", "v2"]),  # while n is trained, n + 1 is played by what n was trained from
        (2, ["v0", "v0", "v0", "v1"]),
        (9, ["v0", "v0", "v0", "v0"]),
    ],
)
def test_a_group_is_at_most_so_many_versions_old(ready: Log, tmp_path: Path, staleness: int, played: list[str]) -> None:
    run = Rehearsal(ready, _settings(tmp_path, max_staleness=staleness))
    outcome = run.run()
    assert [run.played[n] for n in range(1, ROUNDS + 1)] == played
    assert [run.trained[n] for n in range(1, ROUNDS + 1)] == ["v0", "v1", "v2", "v3"]
    assert (outcome.base, outcome.version, outcome.rewards) == ("v0", "v4", (0.25, 0.5, 0.75, 1.0))
    pruned = next(stage for stage in list_stages(ready, "online-1") if stage.key == "prune")
    assert pruned.result is not None and pruned.result["versions"] == ["v1", "v2", "v3"]


def test_no_scenario_is_played_twice_where_there_are_enough(ready: Log, tmp_path: Path) -> None:
    run = Rehearsal(ready, _settings(tmp_path))
    run.run()
    chosen = [digest for n in range(1, ROUNDS + 1) for digest in run.scenarios[n]]
    assert len(chosen) == len(set(chosen)) == 3 * ROUNDS


def test_where_there_are_too_few_scenarios_rounds_share_them(ready: Log, tmp_path: Path) -> None:
    run = Rehearsal(ready, _settings(tmp_path, scenarios_per_round=9))
    run.run()
    assert [len(run.scenarios[n]) for n in range(1, ROUNDS + 1)] == [9] * ROUNDS
    assert all(len(set(run.scenarios[n])) == 9 for n in range(1, ROUNDS + 1))


def test_rounds_without_anything_to_learn_make_no_version(ready: Log, tmp_path: Path) -> None:
    run = Rehearsal(ready, _settings(tmp_path, max_staleness=0), barren={2, 3, 4})
    assert run.run().version == "v1"
    assert [run.played[n] for n in range(1, ROUNDS + 1)] == ["v0", "v1", "v1", "v1"]
    assert Rehearsal(ready, _settings(tmp_path, max_staleness=0)).run().version == "v1", (
        "it is done: nothing runs again"
    )


@pytest.mark.parametrize(
    "fatal, played", [("train 2", {4: "v2"}), ("play 2", {2: "v0", 3: "v1", 4: "v2"})], ids=["train", "play"]
)
def test_a_run_that_failed_goes_on_with_what_it_has(
    ready: Log, tmp_path: Path, fatal: str, played: dict[int, str]
) -> None:
    """Round 2 began with v0: it goes on so, although v1 was trained meanwhile."""
    settings = _settings(tmp_path)
    with pytest.raises(TrainingFailed, match=r"disk is full|simulator is gone"):
        Rehearsal(ready, settings, fatal=fatal).run()
    assert online_run_name(ready) == "online-1"
    again = Rehearsal(ready, settings)
    outcome = again.run()
    assert outcome.version == "v4"
    assert again.played == played
    assert 1 not in again.trained
    assert online_run_name(ready) == "online-2"


def test_what_it_cannot_start_from(sqlite_log: Log, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="no version is live"):
        Rehearsal(sqlite_log, _settings(tmp_path)).run()
    add_version(sqlite_log, "v0", parent=None, path="/nowhere", files={})
    set_version_state(sqlite_log, "v0", VersionState.LIVE, "first")
    with pytest.raises(TrainingFailed, match="no scenario of split train"):
        Rehearsal(sqlite_log, _settings(tmp_path)).run()


def test_it_refuses_to_go_on_with_other_settings(ready: Log, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed):
        Rehearsal(ready, _settings(tmp_path), fatal="train 1").run()
    with pytest.raises(LogError, match=r"online\.max_staleness"):
        Rehearsal(ready, _settings(tmp_path, max_staleness=0)).run()
    Rehearsal(ready, _settings(tmp_path, gateway_port=18431)).run()  # where its server listens does not matter


@pytest.mark.parametrize(
    "ports", [{"gateway_port": 8080}, {"server_port": 8099}, {"server_port": 9000, "gateway_port": 9001}]
)
def test_ports_that_others_take_are_refused(tmp_path: Path, ports: dict[str, int]) -> None:
    with pytest.raises(Exception, match="of the training server"):
        _settings(tmp_path, **ports)


@pytest.fixture
def validated(ready: Log) -> Log:
    add_scenarios(ready, generate_scenarios(Split.VALIDATION, 8, seed=5))
    return ready


@pytest.mark.parametrize(
    ("worth", "version", "looked"),
    [
        ({"v1": 0.6, "v2": 0.7, "v3": 0.8}, "v4", {0: "v0", 1: "v1", 2: "v2", 3: "v3"}),
        ({"v1": 0.6, "v2": 0.4}, "v1", {0: "v0", 1: "v1", 2: "v2"}),  # the best is not the newest before the fall
        ({"v1": 0.4, "v2": 0.4}, None, {0: "v0", 1: "v1", 2: "v2"}),
    ],
    ids=["rises", "falls", "never rose"],
)
def test_it_stops_where_what_is_held_out_falls_while_the_rollouts_rise(
    validated: Log, tmp_path: Path, worth: dict[str, float], version: str | None, looked: dict[int, str]
) -> None:
    wanted = _settings(tmp_path, max_staleness=0, held_out_every=1, held_out_scenarios=6)
    # Round 1 against itself rose by nothing: only from round 2 on can the rollouts have risen.
    run = Rehearsal(validated, wanted, worth=worth)
    outcome = run.run()
    assert (outcome.version, run.looked) == (version, looked)
    assert len({tuple(hashes) for hashes in run.held_out}) == 1 and len(run.held_out[0]) == 6
    assert not set(run.held_out[0]) & {digest for played in run.scenarios.values() for digest in played}
    pruned = next(stage for stage in list_stages(validated, "online-1") if stage.key == "prune")
    assert pruned.result is not None and version not in pruned.result["versions"]
    assert (outcome.stopped is None) == (version == "v4")
    if outcome.stopped is not None:
        assert max(run.played) == 2 and "rollouts' rose from 25.0 to 50.0" in outcome.stopped
    again = Rehearsal(validated, wanted, worth=worth)
    assert again.run() == outcome and not again.looked and not again.played, "it is done: nothing runs again"


@pytest.mark.parametrize("wanted", [{"held_out_every": 0}, {"held_out_every": ROUNDS}])
def test_it_does_not_look_where_nothing_could_stop_it(validated: Log, tmp_path: Path, wanted: dict[str, int]) -> None:
    run = Rehearsal(validated, _settings(tmp_path, **wanted), worth={"v2": 0.1})
    assert run.run().version == "v4"
    assert not run.looked


def looks(*rewards: list[float | None]) -> list[Look]:
    return [Look(n, f"v{n}", {f"s{place}": value for place, value in enumerate(of)}) for n, of in enumerate(rewards)]


@pytest.mark.parametrize(
    ("found", "rollouts", "stops"),
    [
        ([[0.5] * 8], [], False),
        ([[0.5] * 8, [0.3] * 8], [0.2], False),  # no later round to have risen in
        ([[0.5] * 8, [0.5] * 8, [0.3] * 8], [0.2, 0.4], True),
        ([[0.5] * 8, [0.5] * 8, [0.3] * 8], [0.4, 0.4], False),
        ([[0.5] * 8, [0.5] * 8, [0.3] * 8], [0.4, float("nan")], False),  # nothing could be judged
        ([[0.2] * 8, [0.5] * 8, [0.3] * 8], [0.2, 0.4], True),  # against the best, though better than the first
        ([[0.5] * 8, [0.5] * 8, [0.1, 0.9] * 4], [0.2, 0.4], False),  # within the interval
        ([[0.5] * 8, [0.5] * 8, [None] * 5 + [0.1] * 3], [0.2, 0.4], False),  # three pairs are too few
        ([[0.5] * 8, [0.5] * 8, [None] * 4 + [0.1] * 4], [0.2, 0.4], True),
    ],
)
def test_why_a_run_stops_by_hand(found: list[list[float | None]], rollouts: list[float], stops: bool) -> None:
    assert (why_stop(looks(*found), rollouts, seed=1) is not None) == stops
