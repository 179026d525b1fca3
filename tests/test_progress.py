"""How long is left, by a clock that the test moves."""

import pytest
from rich.console import Console

from store.database import Log
from store.stages import list_stages, open_loop
from train.progress import Stage, StageProgress
from train.stages import Stages


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


EXPECTED = {"model": 25.0, "cold-start": 85.0, "servers": 30.0, "before": 45.0, "after": 45.0}
"""230 seconds."""


def progress(clock: Clock, **more: float) -> StageProgress:
    return StageProgress(EXPECTED | more, Console(quiet=True), clock)


def test_a_machine_twice_as_slow_needs_twice_as_long_for_the_rest(clock: Clock) -> None:
    shown = progress(clock)
    assert shown.left_s() == 230
    with shown.stage("cold-start", ""):
        clock.now += 170
        assert shown.left_s("cold-start", 0.5) == 230 - 85 / 2, "before it ends nothing is known of the machine"
    assert shown.left_s() == 2 * (25 + 30 + 45 + 45)
    with shown.stage("before", ""):
        assert shown.left_s("before", 0.2) == 2 * (25 + 30 + 45 + 0.8 * 45)


def test_what_runs_inside_a_stage_counts_once(clock: Clock) -> None:
    """vLLM starts, in 30 s, when the first dialogue is to be played: 45 s of dialogues remain, not 75."""
    shown = progress(clock)
    with shown.stage("cold-start", ""):
        clock.now += 85
    with shown.stage("before", ""):
        with shown.stage("servers", ""):
            clock.now += 30
            assert shown.left_s("servers", 1.0) == 25 + 45 + 45
        clock.now += 45
    assert shown.left_s() == 25 + 45, "as fast as it was thought to be"


def test_a_stage_that_failed_inside_of_another_one_leaves_nothing_behind(clock: Clock) -> None:
    shown = progress(clock)
    with shown.stage("before", ""):
        with pytest.raises(OSError), shown.stage("servers", ""):
            clock.now += 500
            raise OSError
        clock.now += 45
    with shown.stage("cold-start", ""):
        clock.now += 85
    assert shown.left_s() == 25 + 30 + 45


def test_what_is_there_already_or_was_begun_before_says_nothing_of_the_machine(clock: Clock) -> None:
    shown = progress(clock)
    with shown.stage("model", "") as stage:
        stage.not_whole()
    with shown.stage("before", "") as stage:
        stage.not_whole()
        clock.now += 4
    with shown.stage("cold-start", ""):
        clock.now += 170
    assert shown.left_s() == 2 * (30 + 45), "a machine half as fast, not almost as fast"


def test_stages_that_were_done_or_do_not_come_are_not_waited_for(clock: Clock) -> None:
    shown = progress(clock, **{"round-1/gate": 45.0, "round-1/swap": 2.0})
    shown.skip("model", "")
    shown.leave_out("round-1/gate", "round-1/swap", "round-1/load")
    assert shown.left_s() == 230 - 25


def test_a_stage_that_goes_on_says_so_and_counts_what_earlier_tries_took(sqlite_log: Log, clock: Clock) -> None:
    open_loop(sqlite_log, "demo", 1, {})
    whole: list[bool] = []

    def work(stage: Stage) -> dict[str, int]:
        whole.append(stage.is_whole)
        if len(whole) == 1:
            raise KeyboardInterrupt
        return {"played": 3}

    stages = Stages(sqlite_log, "demo", progress(clock))
    with pytest.raises(KeyboardInterrupt):
        stages.run("before", "", work)
    fail = list_stages(sqlite_log, "demo")[0]
    assert fail.seconds is not None and fail.seconds < 5
    with sqlite_log.writing() as connection:
        connection.exec_driver_sql("UPDATE stage SET seconds = 40")
    assert stages.run("before", "", work) == {"played": 3}
    assert whole == [True, False]
    assert 40 <= stages.seconds["before"] < 45
    again = Stages(sqlite_log, "demo", progress(clock))
    again.run("before", "", work)
    assert again.seconds == stages.seconds and len(whole) == 2
