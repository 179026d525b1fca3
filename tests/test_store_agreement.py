"""Which verdicts are paired, which turns are unbiased, what counts as repeated: on both databases."""

from datetime import UTC, datetime
from typing import Any

import pytest

from store.agreement import (
    JudgeId,
    anchor_verdicts,
    gone_through,
    judges_of,
    pairs_of_judges,
    pairs_with_checks,
    pairs_with_people,
    repeated_verdicts,
)
from store.database import Log, LogError
from store.objections import retire_item
from store.records import Scenario
from store.review_samples import ANCHORS, ReviewSample, add_review_batch
from store.scenarios import item_ids
from store.trajectories import record_step
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import Outcome, SampleReason, VerdictSource
from tests.store_examples import a_scenario, a_step, start

LLM, CODE, HUMAN = VerdictSource.LLM, VerdictSource.CODE, VerdictSource.HUMAN


@pytest.fixture
def scenario(log: Log) -> Scenario:
    """Turn 0 has asks-weather (a check of kind "called") and umbrella, turn 1 has answers-thanks."""
    made = a_scenario()
    start(log, "t1", "t2", scenario=made, version="v0001")
    return made


def said(log: Log, scenario: Scenario, outcome: str, key: str = "umbrella", **changes: Any) -> None:
    """One verdict of turn 0 of t1, of an LLM judge unless said otherwise."""
    turn = 1 if key == "answers-thanks" else 0
    fields: dict[str, Any] = {
        "trajectory_id": "t1",
        "turn_index": turn,
        "item_id": item_ids(log, scenario.hash)[turn, key],
        "item_key": key,
        "outcome": Outcome(outcome),
        "step_index": None,
        "source": LLM,
        "judge": "big-judge",
        "prompt_hash": "a" * 64,
        "reason": "so it is",
        "quote": "",
    }
    add_verdicts(log, [Verdict(**fields | changes)])


def by_person(log: Log, scenario: Scenario, outcome: str, key: str = "umbrella", **changes: Any) -> None:
    said(log, scenario, outcome, key, **{"source": HUMAN, "judge": "Ada", "prompt_hash": None} | changes)


def test_the_newest_of_a_judge_beside_the_newest_of_a_person(log: Log, scenario: Scenario) -> None:
    said(log, scenario, "FAIL")
    by_person(log, scenario, "FAIL")
    said(log, scenario, "PASS", counts=False)
    by_person(log, scenario, "PASS", judge="Bob")
    said(log, scenario, "FAIL", draw=1)
    said(log, scenario, "FAIL", trajectory_id="t2")
    said(log, scenario, "PASS", "answers-thanks")
    (pair,) = pairs_with_people(log)
    assert (pair.trajectory_id, pair.turn_index, pair.reference, pair.judged) == ("t1", 0, "PASS", "PASS")
    assert (pair.judge, pair.prompt, pair.kind, pair.channel) == ("big-judge", "a" * 64, "llm", "user_visible_reply")
    assert isinstance(pair.reference, Outcome) and pair.unbiased is False


def test_another_prompt_is_another_judge_and_checks_are_judges_too(log: Log, scenario: Scenario) -> None:
    for key in ("umbrella", "asks-weather"):
        by_person(log, scenario, "PASS", key)
    said(log, scenario, "PASS")
    said(log, scenario, "FAIL", prompt_hash="b" * 64)
    said(log, scenario, "UNSCORED", judge="small-judge", prompt_hash=None)
    said(log, scenario, "FAIL", "asks-weather", source=CODE, judge="checks", prompt_hash=None)
    found = {(p.judge, (p.prompt or "-")[0], p.kind): p.judged for p in pairs_with_people(log)}
    assert found == {
        ("big-judge", "a", "llm"): Outcome.PASS,
        ("big-judge", "b", "llm"): Outcome.FAIL,
        ("small-judge", "-", "llm"): Outcome.UNSCORED,
        ("checks", "-", "called"): Outcome.FAIL,
    }
    assert [p.judge for p in pairs_with_people(log, judge="checks")] == ["checks"]


def test_llm_judges_beside_the_check(log: Log, scenario: Scenario) -> None:
    """A FAIL by rule on an item without a check is no reference: no code has looked at what it asks for."""
    check: dict[str, Any] = {"source": CODE, "judge": "checks", "prompt_hash": None}
    said(log, scenario, "FAIL", "asks-weather", **check)
    said(log, scenario, "PASS", "asks-weather", **check)
    said(log, scenario, "FAIL", "asks-weather", counts=False)
    said(log, scenario, "FAIL", **check | {"judge": "rules"})
    said(log, scenario, "PASS")
    by_person(log, scenario, "FAIL", "asks-weather")
    (pair,) = pairs_with_checks(log)
    assert (pair.judge, pair.kind, pair.channel) == ("big-judge", "called", "assistant_tool_calls")
    assert (pair.reference, pair.judged) == (Outcome.PASS, Outcome.FAIL)
    assert pairs_with_checks(log, judge="nobody") == []


def test_the_version_is_the_one_that_sampled_the_turn(log: Log, scenario: Scenario) -> None:
    """A chat across a swap: asked for v0001, its second turn was sampled by v0002."""
    first = record_step(log, a_step("t1"))
    later = a_step("t1", turn_index=1, parent_id=first, version="v0002", context_tokens=8)
    record_step(log, later)
    for key in ("umbrella", "answers-thanks"):
        said(log, scenario, "PASS", key)
        by_person(log, scenario, "PASS", key)
    said(log, scenario, "PASS", trajectory_id="t2")
    by_person(log, scenario, "PASS", trajectory_id="t2")
    found = {(p.trajectory_id, p.turn_index): p.version for p in pairs_with_people(log)}
    assert found == {("t1", 0): "v0001", ("t1", 1): "v0002", ("t2", 0): "v0001"}


def test_only_random_turns_that_a_person_went_through_are_unbiased(log: Log, scenario: Scenario) -> None:
    """t1's turn 0 has two judged items: after one is corrected it is half reviewed, after both it is gone through.
    Turn 1 was reviewed because it was disputed."""
    add_review_batch(
        log,
        "b1",
        [
            ReviewSample("t1", 0, SampleReason.RANDOM),
            ReviewSample("t2", 0, SampleReason.RANDOM),
            ReviewSample("t1", 1, SampleReason.DISPUTED, 1.0),
        ],
    )
    for key in ("umbrella", "asks-weather", "answers-thanks"):
        said(log, scenario, "PASS", key)
    said(log, scenario, "PASS", trajectory_id="t2")
    by_person(log, scenario, "FAIL", "umbrella")
    by_person(log, scenario, "PASS", "answers-thanks")
    assert gone_through(log) == set()
    assert {p.unbiased for p in pairs_with_people(log)} == {False}
    by_person(log, scenario, "PASS", "asks-weather")
    assert gone_through(log) == {("t1", 0)}
    unbiased = {(p.turn_index, p.item_id) for p in pairs_with_people(log) if p.unbiased}
    ids = item_ids(log, scenario.hash)
    assert unbiased == {(0, ids[0, "umbrella"]), (0, ids[0, "asks-weather"])}
    assert len(pairs_with_people(log)) == 3
    said(log, scenario, "PASS", "asks-weather", trajectory_id="t2", counts=False)
    by_person(log, scenario, "PASS", trajectory_id="t2")
    assert gone_through(log) == {("t1", 0), ("t2", 0)}, "what only stands beside need not be reviewed"


def test_an_item_called_bad_has_been_looked_at(log: Log, scenario: Scenario) -> None:
    add_review_batch(log, "b1", [ReviewSample("t1", 0, SampleReason.RANDOM)])
    for key in ("umbrella", "asks-weather"):
        said(log, scenario, "PASS", key)
    by_person(log, scenario, "FAIL", "asks-weather")
    assert gone_through(log) == set()
    retire_item(log, scenario.hash, 0, "umbrella", person="Ada", reason="style")
    assert gone_through(log) == {("t1", 0)}


def test_repeats_leave_copies_out_of_the_cache_out(log: Log, scenario: Scenario) -> None:
    """Two draws beside, the second of which then counts; a check's item that was tried again after an UNSCORED and
    asked afresh, the answer in other words; a copy of another trajectory's answer; another judge that spoke once."""
    said(log, scenario, "PASS", cache_key="k0", counts=False)
    said(log, scenario, "FAIL", cache_key="k1", draw=1, counts=False)
    said(log, scenario, "FAIL", cache_key="k1", draw=1)
    said(log, scenario, "UNSCORED", "asks-weather", cache_key="k2")
    said(log, scenario, "PASS", "asks-weather", cache_key="k2")
    said(log, scenario, "PASS", "asks-weather", cache_key="k2", reason="yes, it is", counts=False)
    said(log, scenario, "FAIL", "asks-weather", cache_key="k2", counts=False)
    said(log, scenario, "FAIL", trajectory_id="t2", cache_key="k1")
    said(log, scenario, "FAIL", judge="small-judge")
    by_person(log, scenario, "FAIL")
    found = {repeat.kind: (repeat.passed, repeat.failed, repeat.unscored) for repeat in repeated_verdicts(log)}
    assert found == {"llm": (1, 1, 0), "called": (2, 1, 1)}
    assert repeated_verdicts(log, judge="small-judge") == []


def test_anchor_verdicts_in_order_with_what_a_person_says(log: Log, scenario: Scenario) -> None:
    add_review_batch(log, ANCHORS, [ReviewSample("t1", 0, SampleReason.ANCHOR)])
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 8, 9)]
    said(log, scenario, "PASS", created_at=moments[0], cache_key="k", counts=False)
    said(log, scenario, "PASS", created_at=moments[1], cache_key="k")
    said(log, scenario, "FAIL", created_at=moments[2])
    said(log, scenario, "FAIL", "asks-weather", created_at=moments[2])
    said(log, scenario, "FAIL", "answers-thanks")
    said(log, scenario, "FAIL", trajectory_id="t2")
    by_person(log, scenario, "FAIL")
    by_person(log, scenario, "PASS")
    found = [(v.outcome, v.person, v.created_at) for v in anchor_verdicts(log)]
    assert found == [("PASS", "PASS", moments[0]), ("FAIL", "PASS", moments[2]), ("FAIL", None, moments[2])]
    assert anchor_verdicts(log, judge="nobody") == []


def test_the_newest_verdicts_of_two_judges_are_paired(log: Log, scenario: Scenario) -> None:
    said(log, scenario, "FAIL")
    said(log, scenario, "PASS")
    said(log, scenario, "FAIL", prompt_hash="b" * 64)
    said(log, scenario, "PASS", judge="other", prompt_hash=None)
    said(log, scenario, "PASS", judge="other", prompt_hash=None, draw=1)
    said(log, scenario, "PASS", "answers-thanks")
    first, other = JudgeId("big-judge", "a" * 64), JudgeId("other", None)
    (pair,) = pairs_of_judges(log, first, other)
    assert (pair.reference, pair.judged, pair.judge) == (Outcome.PASS, Outcome.PASS, "other")
    (pair,) = pairs_of_judges(log, JudgeId("big-judge", "b" * 64), other)
    assert pair.reference == Outcome.FAIL
    assert judges_of(log) == {first: 3, other: 2, JudgeId("big-judge", "b" * 64): 1}
    with pytest.raises(LogError, match="agrees with itself"):
        pairs_of_judges(log, other, other)
