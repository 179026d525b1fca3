"""Batches of turns to review, what is open of them, and what makes a turn worth a look: on both databases."""

from typing import Any

import pytest

from store.database import Log, LogError
from store.model_calls import ModelCall, add_model_calls
from store.objections import retire_item
from store.ratings import rate_turn
from store.records import Scenario
from store.review_samples import (
    ANCHORS,
    ReviewSample,
    add_review_batch,
    review_batches,
    review_queue,
    samples_of,
)
from store.review_signals import TurnSignals, turn_signals
from store.trajectories import record_step
from store.verdicts import Vote
from store.vocabulary import ModelRole, Outcome, SampleReason
from tests.store_examples import a_scenario, a_step, start
from tests.test_store_agreement import CODE, by_person, said


@pytest.fixture
def scenario(log: Log) -> Scenario:
    made = a_scenario()
    start(log, "t1", "t2", scenario=made)
    for name in ("t1", "t2"):
        first = record_step(log, a_step(name, user="Do I need an umbrella?"))
        second = a_step(name, turn_index=1, parent_id=first, context_tokens=8, user="Thanks")
        record_step(log, second)
    return made


RANDOM = ReviewSample("t1", 0, SampleReason.RANDOM)
DISPUTED = ReviewSample("t2", 1, SampleReason.DISPUTED, 0.75)


def test_a_batch_keeps_its_order(log: Log, scenario: Scenario) -> None:
    add_review_batch(log, "first", [DISPUTED, RANDOM])
    add_review_batch(log, "second", [RANDOM])
    assert samples_of(log, "first") == [DISPUTED, RANDOM]
    assert [(batch.name, batch.turns) for batch in review_batches(log)] == [("first", 2), ("second", 1)]
    assert review_batches(log)[0].created_at.tzinfo is not None


def test_what_no_batch_can_be(log: Log, scenario: Scenario) -> None:
    add_review_batch(log, "first", [RANDOM])
    with pytest.raises(LogError, match="there is a batch 'first' already, with 1 turns"):
        add_review_batch(log, "first", [DISPUTED])
    with pytest.raises(LogError, match="1 to 64 characters, not ''"):
        add_review_batch(log, "  ", [DISPUTED])
    with pytest.raises(LogError, match="turn 0 of trajectory 't1' stands twice"):
        add_review_batch(log, "second", [RANDOM, DISPUTED, ReviewSample("t1", 0, SampleReason.UNCERTAIN, 0.5)])
    with pytest.raises(LogError, match=r"(?i)foreign key"):
        add_review_batch(log, "second", [DISPUTED, ReviewSample("nobody", 0, SampleReason.RANDOM)])
    with pytest.raises(LogError, match="no batch 'second'"):
        samples_of(log, "second")
    assert len(review_batches(log)) == 1


def test_anchors_are_fixed_once(log: Log, scenario: Scenario) -> None:
    add_review_batch(log, ANCHORS, [ReviewSample("t1", 0, SampleReason.ANCHOR)])
    with pytest.raises(LogError, match=r"fixed on \d{4}-\d\d-\d\d with 1 turns: it stays"):
        add_review_batch(log, ANCHORS, [ReviewSample("t2", 0, SampleReason.ANCHOR)])
    assert samples_of(log, ANCHORS) == [ReviewSample("t1", 0, SampleReason.ANCHOR)]


def test_the_queue_says_what_is_open(log: Log, scenario: Scenario) -> None:
    """A person's verdict closes an item, an LLM's does not; an item that is called bad is closed for all turns."""
    add_review_batch(log, "first", [DISPUTED, RANDOM])
    said(log, scenario, "PASS", "asks-weather")
    by_person(log, scenario, "FAIL", "umbrella")
    thanks, rain = review_queue(log, "first")
    assert (thanks.sample, thanks.user, thanks.open_items, thanks.items) == (DISPUTED, "Thanks", ("answers-thanks",), 1)
    assert (rain.user, rain.open_items, rain.done) == ("Do I need an umbrella?", ("asks-weather",), False)
    retire_item(log, scenario.hash, 0, "asks-weather", person="Ada", reason="style")
    assert review_queue(log, "first")[1].done
    by_person(log, scenario, "PASS", "answers-thanks", trajectory_id="t2")
    assert all(turn.done for turn in review_queue(log, "first"))


def only(log: Log, **expected: Any) -> None:
    """t1's turn 0 is judged, nothing else is, and its signals are these."""
    assert turn_signals(log) == {("t1", 0): TurnSignals(**expected)}


def test_a_turn_is_judged_by_what_counts(log: Log, scenario: Scenario) -> None:
    assert turn_signals(log) == {}
    said(log, scenario, "PASS", "answers-thanks", counts=False)
    by_person(log, scenario, "PASS", trajectory_id="t2")
    assert turn_signals(log) == {}
    said(log, scenario, "PASS", "asks-weather", source=CODE, judge="checks")
    only(log)


def test_panels_and_unscored_items(log: Log, scenario: Scenario) -> None:
    """Votes 2 to 1 with an UNSCORED beside; a mean of 0.25; what was judged again does not count any more."""
    votes = tuple(
        Vote("big-judge", draw, Outcome(said)) for draw, said in enumerate(["PASS", "FAIL", "PASS", "UNSCORED"])
    )
    said(log, scenario, "UNSCORED")
    said(log, scenario, "PASS", votes=votes)
    said(log, scenario, "UNSCORED", "asks-weather")
    said(log, scenario, "PASS", "asks-weather", judge="small-judge", counts=False)
    only(log, panel_shares=[2 / 3], unscored_items=1)
    said(log, scenario, "FAIL", "asks-weather", share=0.25)
    only(log, panel_shares=[2 / 3, 0.25], contested_shares=[0.5])


def test_a_judge_that_had_to_be_asked_again(log: Log, scenario: Scenario) -> None:
    """Two items in the first call, one of them again in the second. A call that failed asked nothing."""
    for key in ("umbrella", "asks-weather"):
        said(log, scenario, "PASS", key)
    call = ModelCall(
        ModelRole.JUDGE, "big-judge", "a" * 64, 10, 0, 5, None, 1.0, items=2, trajectory_id="t1", turn_index=0
    )
    add_model_calls(log, [call, ModelCall(**vars(call) | {"error": "timeout"})])
    only(log)
    add_model_calls(log, [ModelCall(**vars(call) | {"items": 1})])
    only(log, asked_again=1)


def test_contested_items(log: Log, scenario: Scenario) -> None:
    """PASS, PASS and FAIL of three judges; a person's word is no dispute among judges, an UNSCORED no opinion, and what
    a panel makes of its votes no further vote."""
    said(log, scenario, "PASS")
    by_person(log, scenario, "FAIL")
    said(log, scenario, "UNSCORED", judge="small-judge", counts=False)
    only(log, reviewed=True)
    said(log, scenario, "FAIL", judge="small-judge", counts=False)
    said(log, scenario, "PASS", judge="third-judge", counts=False)
    only(log, reviewed=True, contested_shares=[2 / 3])
    votes = (Vote("big-judge", 0, Outcome.PASS), Vote("third-judge", 0, Outcome.PASS))
    said(log, scenario, "PASS", judge="majority of both", votes=votes, counts=False)
    only(log, reviewed=True, contested_shares=[2 / 3])


def test_a_thumb_down_against_passes(log: Log, scenario: Scenario) -> None:
    said(log, scenario, "PASS")
    said(log, scenario, "FAIL", "asks-weather")
    for value in (-1, 1):
        rate_turn(log, "t1", 0, value, person="Ada")
    rate_turn(log, "t1", 1, -1, person="Ada")
    only(log)
    rate_turn(log, "t1", 0, -1, person="Ada")
    only(log, passed_against_thumbs_down=0.5)


def test_what_was_put_up_before(log: Log, scenario: Scenario) -> None:
    said(log, scenario, "PASS")
    add_review_batch(log, ANCHORS, [ReviewSample("t1", 0, SampleReason.ANCHOR)])
    only(log)
    add_review_batch(log, "b1", [ReviewSample("t1", 0, SampleReason.UNCERTAIN, 0.5), DISPUTED])
    only(log, put_up=True)
    add_review_batch(log, "b2", [RANDOM])
    only(log, put_up=True, drawn=True)
