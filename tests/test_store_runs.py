"""A run is gone on with after a kill, never mixed with another one; its metrics read as last measured."""

import pytest

from store.database import Log, LogError
from store.run_dialogues import RunDialogue, add_run_dialogues, count_run_dialogues, page_of_run_dialogues
from store.runs import (
    RunUse,
    add_metrics,
    add_run_trajectories,
    finish_run,
    get_run,
    list_runs,
    metrics_of,
    run_trajectories,
    start_run,
    used_by,
    uses_of,
)
from store.scenarios import add_scenarios
from store.vocabulary import AdvantageLevel, JobStatus, RunKind, Split
from tests.store_examples import a_scenario, start

SETTINGS = {"learning_rate": 2e-5, "clip": [0.2, 0.28]}


def test_a_run_comes_back_as_it_was_started_and_ended(log: Log) -> None:
    run = start_run(log, "demo/grpo-1", RunKind.GRPO, "v0001", 7, SETTINGS)
    found = get_run(log, "demo/grpo-1")
    assert (found.id, found.kind, found.base_version, found.seed) == (run, RunKind.GRPO, "v0001", 7)
    assert (found.settings, found.status, found.ended_at) == (SETTINGS, JobStatus.RUNNING, None)
    finish_run(log, run, JobStatus.DONE)
    ended = get_run(log, "demo/grpo-1")
    assert (ended.status, ended.error) == (JobStatus.DONE, None)
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.created_at
    start_run(log, "demo/sft", "sft", None, 7, {})
    assert [r.name for r in list_runs(log)] == ["demo/grpo-1", "demo/sft"]
    with pytest.raises(LogError, match="no run 'demo/grpo-9'"):
        get_run(log, "demo/grpo-9")


def test_a_killed_or_failed_run_is_gone_on_with(log: Log) -> None:
    run = start_run(log, "r", RunKind.GRPO, "v0001", 7, {"clip": (0.2, 0.28)})
    assert start_run(log, "r", RunKind.GRPO, "v0001", 7, {"clip": [0.2, 0.28]}) == run
    finish_run(log, run, JobStatus.FAILED, "no memory")
    assert get_run(log, "r").error == "no memory"
    assert start_run(log, "r", RunKind.GRPO, "v0001", 7, {"clip": [0.2, 0.28]}) == run
    again = get_run(log, "r")
    assert (again.status, again.error, again.ended_at) == (JobStatus.RUNNING, None, None)


def test_a_name_stands_for_one_run(log: Log) -> None:
    run = start_run(log, "r", RunKind.GRPO, "v0001", 7, SETTINGS)
    with pytest.raises(LogError, match="'r' was started with another base_version, seed: use another name"):
        start_run(log, "r", RunKind.GRPO, "v0002", 8, SETTINGS)
    finish_run(log, run, JobStatus.DONE)
    with pytest.raises(LogError, match="'r' is done"):
        start_run(log, "r", RunKind.GRPO, "v0001", 7, SETTINGS)
    with pytest.raises(LogError, match=f"run {run} is not running"):
        finish_run(log, run, JobStatus.FAILED, "too late")
    with pytest.raises(LogError, match="done or failed, not as queued"):
        finish_run(log, run, JobStatus.QUEUED)


def test_metrics_read_as_last_measured(log: Log) -> None:
    run = start_run(log, "r", RunKind.GRPO, None, 7, {})
    other = start_run(log, "other", RunKind.GRPO, None, 7, {})
    add_metrics(log, other, 1, {"loss": 9.0})
    add_metrics(log, run, 1, {"loss": 1.0, "reward": 0.25})
    add_metrics(log, run, 2, {"loss": 0.5, "kl": float("nan")})
    add_metrics(log, run, 1, {"loss": 0.75})
    assert metrics_of(log, run) == {"loss": [(1, 0.75), (2, 0.5)], "reward": [(1, 0.25)]}


def test_a_run_holds_exactly_the_trajectories_that_it_trained_on(log: Log) -> None:
    start(log, "t1", "t2", "t3")
    run, other = (start_run(log, name, RunKind.GRPO, None, 7, {}) for name in ("r", "other"))
    add_run_trajectories(log, other, {"t1": 1.0})
    add_run_trajectories(log, run, {"t1": 0.5, "t2": -0.5})
    add_run_trajectories(log, run, {"t2": -0.25, "t3": 0.0})
    assert run_trajectories(log, run) == {"t2": -0.25, "t3": 0.0}, "what a killed try said is gone"
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        add_run_trajectories(log, run, {"t1": 1.0, "nobody": 1.0})
    assert run_trajectories(log, run) == {"t2": -0.25, "t3": 0.0}
    assert run_trajectories(log, other) == {"t1": 1.0}


def test_what_a_run_trained_with_is_kept_beside_equation_5(log: Log) -> None:
    start(log, "t1", "t2")
    run, before = (start_run(log, name, RunKind.GRPO, None, 7, {}) for name in ("r", "before"))
    add_run_trajectories(log, run, {"t1": 0.0, "t2": 0.5}, {"t1": [(0, 0, -0.5), (1, 2, 0.5)]}, AdvantageLevel.STEP)
    add_run_trajectories(log, before, {"t1": 1.0})
    assert uses_of(log, "t1") == [
        RunUse("r", 0.0, AdvantageLevel.STEP, ((0, 0, -0.5), (1, 2, 0.5))),
        RunUse("before", 1.0, None, None),
    ]
    assert uses_of(log, "t2") == [RunUse("r", 0.5, AdvantageLevel.STEP, ())], "no step of it is in the loss"
    assert used_by(log, [run, before]) == {run: (2, 0.5), before: (1, 1.0)}


def test_a_cold_start_knows_its_dialogues(log: Log) -> None:
    rain, sun = a_scenario("rain"), a_scenario("sun", split=Split.VALIDATION)
    add_scenarios(log, [rain, sun])
    run = start_run(log, "sft", RunKind.SFT, None, 7, SETTINGS)
    add_run_dialogues(log, run, {sun.hash: Split.TRAIN})
    used = {rain.hash: Split.TRAIN, sun.hash: Split.VALIDATION}
    add_run_dialogues(log, run, used)
    listed = page_of_run_dialogues(log, run, limit=10)
    assert {one.scenario_hash: one.split for one in listed} == used, "what a killed try said is gone"
    assert listed[0] == RunDialogue(rain.hash, "rain", rain.domain, rain.source, len(rain.turns), Split.TRAIN)
    assert page_of_run_dialogues(log, run, limit=1, offset=1) == listed[1:]
    assert count_run_dialogues(log, [run, run + 1]) == {run: {Split.TRAIN: 1, Split.VALIDATION: 1}}
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        add_run_dialogues(log, run, {"nothing of this log": Split.TRAIN})
    assert page_of_run_dialogues(log, run, limit=10) == listed
