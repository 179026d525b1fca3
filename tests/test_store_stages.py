"""A loop is one loop however often it is started, and each of its stages is done once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.database import Log, LogError
from store.stages import (
    fail_stage,
    finish_stage,
    list_loops,
    list_stages,
    open_loop,
    running_loops,
    stage_result,
    start_stage,
)
from store.vocabulary import JobStatus

SETTINGS = {"rounds": 4, "grpo": {"kl": 0.0, "learning_rate": 2e-5}}


def test_a_loop_is_opened_again_as_it_was(log: Log) -> None:
    first = open_loop(log, "demo", 1, SETTINGS)
    assert (first.name, first.seed, first.settings) == ("demo", 1, SETTINGS)
    assert open_loop(log, "demo", 1, dict(reversed(SETTINGS.items()))) == first
    other = open_loop(log, "other", 2, {})
    assert list_loops(log) == [first, other]


@pytest.mark.parametrize(
    ("seed", "settings", "message"),
    [
        (2, SETTINGS, r"seed: 1 then, 2 now\): set them back"),
        (1, {**SETTINGS, "rounds": 5}, r"\(rounds: 4 then, 5 now\)"),
        (1, {"rounds": 4, "grpo": {"kl": 0.1, "learning_rate": 2e-5}}, r"\(grpo\.kl: 0\.0 then, 0\.1 now\)"),
        (1, {**SETTINGS, "extra": None, "more": 1}, r"more: null then, 1 now.*use another name"),
    ],
)
def test_a_loop_with_other_settings_is_refused(log: Log, seed: int, settings: dict[str, object], message: str) -> None:
    before = open_loop(log, "demo", 1, SETTINGS)
    with pytest.raises(LogError, match=f"'demo' was started with other settings.*{message}"):
        open_loop(log, "demo", seed, settings)
    assert list_loops(log) == [before]


def test_a_stage_is_done_once(log: Log) -> None:
    open_loop(log, "demo", 1, {})
    open_loop(log, "other", 1, {})
    assert stage_result(log, "demo", "sft") is None
    start_stage(log, "demo", "sft")
    start_stage(log, "other", "sft")
    assert stage_result(log, "demo", "sft") is None
    finish_stage(log, "demo", "sft", {"version": "v0001"}, 12.5)
    assert stage_result(log, "demo", "sft") == {"version": "v0001"}
    assert stage_result(log, "other", "sft") is None
    with pytest.raises(LogError, match="stage 'sft' of loop 'demo' is done"):
        start_stage(log, "demo", "sft")
    with pytest.raises(LogError, match="stage 'sft' of loop 'demo' is not running"):
        finish_stage(log, "demo", "sft", {"version": "v0002"}, 1.0)
    with pytest.raises(LogError, match="is not running"):
        fail_stage(log, "demo", "sft", "too late")
    (stage,) = list_stages(log, "demo")
    assert (stage.status, stage.result, stage.seconds) == (JobStatus.DONE, {"version": "v0001"}, 12.5)
    assert stage.error is None


def test_an_empty_result_is_a_result(log: Log) -> None:
    open_loop(log, "demo", 1, {})
    start_stage(log, "demo", "model")
    finish_stage(log, "demo", "model", {}, 0.1)
    assert stage_result(log, "demo", "model") == {}


def test_a_killed_or_failed_stage_starts_again_in_its_row(log: Log) -> None:
    open_loop(log, "demo", 1, {})
    assert start_stage(log, "demo", "before") is None
    (killed,) = list_stages(log, "demo")
    assert start_stage(log, "demo", "before") == 0.0, "how long a killed try took nobody knows"
    start_stage(log, "demo", "train")
    fail_stage(log, "demo", "before", "vLLM died", 3.0)
    failed, _ = list_stages(log, "demo")
    assert (failed.id, failed.status, failed.error, failed.seconds) == (killed.id, JobStatus.FAILED, "vLLM died", 3.0)
    assert start_stage(log, "demo", "before") == 3.0
    again, _ = list_stages(log, "demo")
    assert (again.id, again.status, again.error, again.seconds) == (killed.id, JobStatus.RUNNING, None, 3.0)
    assert again.ended_at is None
    assert again.started_at > killed.started_at


def test_loops_amid_a_stage_are_named(log: Log) -> None:
    for loop in ("one", "two", "three"):
        open_loop(log, loop, 1, SETTINGS)
        start_stage(log, loop, "model")
    finish_stage(log, "two", "model", {}, 1.0)
    fail_stage(log, "three", "model", "no disk", 1.0)
    assert running_loops(log) == {"one"}


def test_a_stage_needs_its_loop(log: Log) -> None:
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        start_stage(log, "nobody", "sft")


def test_only_one_of_many_ends_a_stage(log: Log) -> None:
    open_loop(log, "demo", 1, {})
    start_stage(log, "demo", "sft")
    barrier = threading.Barrier(8)

    def finish(number: int) -> bool:
        barrier.wait()
        try:
            finish_stage(log, "demo", "sft", {"by": number}, 1.0)
        except LogError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(finish, range(8)))
    assert ended.count(True) == 1
    assert stage_result(log, "demo", "sft") == {"by": ended.index(True)}
