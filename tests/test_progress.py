"""How long is left, by a clock that the test moves."""

import pytest
from rich.console import Console

from train.progress import StageProgress


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
        stage.nothing_to_do()
    with shown.stage("before", "", begun_before=True):
        clock.now += 4
    with shown.stage("cold-start", ""):
        clock.now += 170
    assert shown.left_s() == 2 * (30 + 45), "a machine half as fast, not almost as fast"


def test_stages_that_were_done_or_do_not_come_are_not_waited_for(clock: Clock) -> None:
    shown = progress(clock, **{"round-1/gate": 45.0, "round-1/swap": 2.0})
    shown.skip("model", "")
    shown.leave_out("round-1/gate", "round-1/swap", "round-1/load")
    assert shown.left_s() == 230 - 25
