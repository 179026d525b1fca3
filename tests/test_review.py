"""Going through judged turns: queues under filters, claims, agreeing and undoing, on both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from reward.people import call_bad, say
from reward.review import agree, hold_turn, read_turn, resume_turn, say_of, take_turn, undo
from store.agreement import pairs_with_people
from store.checklists import Checklist, add_checklists, revise_checklist
from store.database import Log, LogError
from store.figures import sum_counts, verdict_cube
from store.objections import ids_called_bad
from store.ratings import rate_turn
from store.review_claims import (
    CLAIM_S,
    claim_turn,
    claims_of_others,
    count_pace,
    keep_draft,
    name_of,
    pace_of,
    place_of,
    seated,
)
from store.review_queues import QueueFilter, Turn, count_open, find_turn, judged_items, judged_kinds, list_open
from store.review_samples import ReviewSample, add_review_batch, any_put_up
from store.scenarios import add_scenarios, item_ids
from store.trajectories import delete_trajectories
from store.verdicts import rewards_of, verdicts_of
from store.vocabulary import Outcome, SampleReason, VerdictSource
from store.withdrawals import withdraw_verdict
from tests.store_examples import a_scenario
from tests.test_people import ADA, play, value
from tests.test_store_agreement import said as add_verdict

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SCENARIO = a_scenario()


@pytest.fixture
def played(log: Log) -> Log:
    """t1, t2, t3: in turn 0 asks-weather PASSes and umbrella FAILs, in turn 1 answers-thanks PASSes. Newest: t3."""
    for name in ("t1", "t2", "t3"):
        play(log, SCENARIO, name)
    return log


EVERYTHING = QueueFilter()


def walk(log: Log, wanted: QueueFilter = EVERYTHING, *, person: str = "Ada", **changes: Any) -> list[Turn]:
    turns: list[Turn] = []
    after: Turn | None = None
    while (after := find_turn(log, wanted, person=person, at=NOW, after=after, **changes)) is not None:
        turns.append(after)
    return turns


def test_a_queue_walks_newest_first_and_back(played: Log) -> None:
    turns = [(name, turn) for name in ("t3", "t2", "t1") for turn in (0, 1)]
    assert walk(played) == turns
    assert find_turn(played, QueueFilter(), person="Ada", at=NOW, after=("t2", 0), backwards=True) == ("t3", 1)
    assert find_turn(played, QueueFilter(), person="Ada", at=NOW, after=("t2", 1), backwards=True) == ("t2", 0)
    assert find_turn(played, QueueFilter(), person="Ada", at=NOW, after=("t3", 0), backwards=True) is None
    assert count_open(played, QueueFilter(), person="Ada", at=NOW, most=4) == 4
    assert list_open(played, QueueFilter(), person="Ada", at=NOW, limit=1) == [(("t3", 0), "hello")]


def test_every_filter_narrows_it(played: Log) -> None:
    ids = item_ids(played, SCENARIO.hash)
    zeros = [("t3", 0), ("t2", 0), ("t1", 0)]
    assert walk(played, QueueFilter(outcome=Outcome.FAIL)) == zeros
    assert walk(played, QueueFilter(outcome=Outcome.UNSCORED)) == []
    assert walk(played, QueueFilter(item_id=ids[1, "answers-thanks"])) == [("t3", 1), ("t2", 1), ("t1", 1)]
    assert walk(played, QueueFilter(item_id=ids[0, "umbrella"], outcome=Outcome.PASS)) == []
    assert len(walk(played, QueueFilter(version="v0001"))) in (0, 6)
    assert walk(played, QueueFilter(version="v0099")) == []
    rate_turn(played, "t2", 0, -1, person="Bob")
    rate_turn(played, "t1", 0, -1, person="Bob")
    rate_turn(played, "t1", 0, 1, person="Bob")
    assert walk(played, QueueFilter(thumbs_down=True)) == [("t2", 0)]
    samples = [ReviewSample("t1", 1, SampleReason.RANDOM), ReviewSample("t3", 0, SampleReason.DISPUTED, 0.5)]
    add_review_batch(played, "b1", samples)
    add_review_batch(played, "b2", [ReviewSample("t2", 0, SampleReason.RANDOM)])
    assert walk(played, QueueFilter(batch="b1")) == [("t1", 1), ("t3", 0)]
    assert walk(played, QueueFilter(whys=(SampleReason.RANDOM,))) == [("t1", 1), ("t2", 0)]
    assert walk(played, QueueFilter(whys=(SampleReason.RANDOM,), outcome=Outcome.FAIL)) == [("t2", 0)]
    either = QueueFilter(whys=(SampleReason.RANDOM, SampleReason.DISPUTED))
    assert walk(played, either) == [("t1", 1), ("t3", 0), ("t2", 0)]
    assert walk(played, replace(either, thumbs_down=True)) == [("t2", 0)]
    back = find_turn(played, QueueFilter(batch="b1"), person="Ada", at=NOW, after=("t3", 0), backwards=True)
    assert back == ("t1", 1)


def test_a_turn_leaves_the_queue_when_each_item_has_a_person_s_word(played: Log) -> None:
    failing = QueueFilter(outcome=Outcome.FAIL)
    say(played, "t3", 0, "umbrella", "PASS", **ADA)
    assert walk(played, failing) == [("t2", 0), ("t1", 0)]  # what was asked for is settled there
    assert ("t3", 0) in walk(played)  # asks-weather is open
    say(played, "t3", 0, "asks-weather", "PASS", **ADA)
    assert ("t3", 0) not in walk(played)
    assert walk(played, failing, only_open=False)[0] == ("t3", 0)  # the judge's word keeps its place
    call_bad(played, "t2", 0, "umbrella", **ADA)
    assert walk(played, failing) == []
    undo(played, person="Ada")
    assert walk(played, failing) == [("t2", 0), ("t1", 0)]


@pytest.mark.parametrize("rare", [0, 20_000])
def test_a_queue_of_a_kind_of_item_or_a_domain(played: Log, monkeypatch: pytest.MonkeyPatch, rare: int) -> None:
    """The same whether the walk begins at the verdicts of a rare kind or at the newest trajectory."""
    monkeypatch.setattr("store.review_queues._RARE", rare)
    add_scenarios(played, [other := a_scenario("shop", domain="shop")])
    play(played, other, "s1")
    zeros = [("t3", 0), ("t2", 0), ("t1", 0)]
    assert walk(played, QueueFilter(kind="called", domain="weather")) == zeros
    assert walk(played, QueueFilter(kind="called")) == [("s1", 0), *zeros]
    assert walk(played, QueueFilter(kind="called", outcome=Outcome.FAIL)) == [], "the FAIL is of another kind"
    assert walk(played, QueueFilter(kind="llm", outcome=Outcome.FAIL, domain="shop")) == [("s1", 0)]
    assert walk(played, QueueFilter(kind="numbers_in_reply")) == walk(played, QueueFilter(domain="travel")) == []
    shown = read_turn(played, ("s1", 0))
    assert shown is not None
    assert [one.item.id for one in shown.open_items(QueueFilter(kind="called"))] == ["asks-weather"]
    say(played, "s1", 0, "asks-weather", "PASS", **ADA)
    assert walk(played, QueueFilter(kind="called")) == zeros, "what was asked for is settled"


def test_what_there_is_to_choose_among(played: Log) -> None:
    assert judged_kinds(played) == ("called", "llm")
    ids = item_ids(played, SCENARIO.hash)
    assert [(one.id, one.key, one.turn_index, one.scenario) for one in judged_items(played, domain="weather")] == [
        (ids[0, "asks-weather"], "asks-weather", 0, "rain"),
        (ids[0, "umbrella"], "umbrella", 0, "rain"),
        (ids[1, "answers-thanks"], "answers-thanks", 1, "rain"),
    ]
    assert [one.key for one in judged_items(played, domain="weather", kind="called")] == ["asks-weather"]
    assert len(judged_items(played, domain="weather", limit=2)) == 2 and judged_items(played, domain="shop") == []
    assert not any_put_up(played, [SampleReason.DISPUTED])
    add_review_batch(played, "b1", [ReviewSample("t3", 0, SampleReason.DISPUTED, 0.5)])
    assert any_put_up(played, [SampleReason.RANDOM, SampleReason.DISPUTED])


def test_the_name_of_a_queue_fits_its_column_and_is_its_own() -> None:
    one, other = (QueueFilter(batch="b" * 64, domain="d" * 64, kind="k" * 99, version="v" * n) for n in (90, 91))
    assert len(one.name) == len(other.name) == 255 and one.name != other.name
    both = (SampleReason.RANDOM, SampleReason.DISPUTED)
    assert QueueFilter(whys=both).name == QueueFilter(whys=both[::-1]).name == "whys=disputed,random"


def test_two_reviewers_never_have_the_same_turn(played: Log) -> None:
    wanted = QueueFilter()
    assert take_turn(played, wanted, person="Ada", at=NOW) == ("t3", 0)
    assert take_turn(played, wanted, person="Bob", at=NOW) == ("t3", 1)
    assert take_turn(played, wanted, person="Ada", at=NOW, after=("t3", 0)) == ("t2", 0)
    assert take_turn(played, wanted, person="Cy", at=NOW) == ("t3", 0)  # Ada left it
    assert [claim.person for claim in claims_of_others(played, "Ada", NOW)] == ["Bob", "Cy"]
    with pytest.raises(LogError, match=r"Bob has turn 1 of trajectory 't3' until 12:03:00 UTC"):
        hold_turn(played, ("t3", 1), person="Ada", at=NOW)
    later = NOW + timedelta(seconds=CLAIM_S)
    assert hold_turn(played, ("t3", 1), person="Ada", at=later).person == "Ada"
    assert claim_turn(played, ("t3", 1), person="Bob", at=later).person == "Ada"


@pytest.mark.parametrize(
    "person_of", [lambda n: f"person {n}", lambda n: seated("Ada", f"browser{n}")], ids=["names", "one name"]
)
def test_none_of_many_who_ask_at_once_gets_a_turn_twice(played: Log, person_of: Callable[[int], str]) -> None:
    """Six open turns, five people, five times: everybody gets one, and nobody another's."""
    count = 5
    with ThreadPoolExecutor(count) as pool:
        for hour in range(5):  # the claims of the time before have run out
            barrier = Barrier(count, timeout=30)

            def ask(n: int, at: datetime = NOW + timedelta(hours=hour), barrier: Barrier = barrier) -> Turn | None:
                barrier.wait()
                return take_turn(played, QueueFilter(), person=person_of(n), at=at)

            given = list(pool.map(ask, range(count)))
            assert None not in given and len(set(given)) == count, given


def test_two_browsers_of_one_name_have_turns_and_places_of_their_own(played: Log) -> None:
    wanted, here, there = QueueFilter(), seated("Ada", "b1"), seated("Ada", "b2")
    assert take_turn(played, wanted, person=here, at=NOW) == ("t3", 0)
    assert take_turn(played, wanted, person=there, at=NOW) == ("t3", 1)
    assert [claim.name for claim in claims_of_others(played, here, NOW)] == ["Ada"]
    with pytest.raises(LogError, match=r"^Ada has turn 1 of trajectory 't3'"):
        hold_turn(played, ("t3", 1), person=here, at=NOW)
    keep_draft(played, here, wanted.name, "it rai")
    keep_draft(played, there, wanted.name, "thanks are")
    at_both = [place_of(played, person, wanted.name) for person in (here, there)]
    assert [place and (place.turn, place.draft) for place in at_both] == [
        (("t3", 0), "it rai"),
        (("t3", 1), "thanks are"),
    ]
    # Tomorrow at a third one: where Ada stood last, with what she had begun to write.
    tomorrow, third = NOW + timedelta(days=1), seated("Ada", "b3")
    claim_turn(played, ("t3", 0), person=here, at=NOW + timedelta(hours=1), queue=wanted.name)
    assert resume_turn(played, wanted, person=third, at=tomorrow) == ("t3", 0)
    place = place_of(played, third, wanted.name)
    assert place is not None and (place.turn, place.draft) == (("t3", 0), "it rai")
    assert place_of(played, seated("Ad", "b1"), wanted.name) is None
    assert place_of(played, seated("Ad%", "b1"), wanted.name) is None
    assert name_of(seated("A\x1fB" + "C" * 200, "b1")) == "A B" + "C" * 97


def test_a_claim_is_kept_by_renewing_it(played: Log) -> None:
    claim_turn(played, ("t3", 0), person="Ada", at=NOW)
    claim_turn(played, ("t3", 0), person="Ada", at=NOW + timedelta(seconds=100))
    soon = NOW + timedelta(seconds=CLAIM_S + 1)
    assert claim_turn(played, ("t3", 0), person="Bob", at=soon).person == "Ada"


def test_the_end_of_a_queue_leads_to_what_was_skipped(played: Log) -> None:
    wanted = QueueFilter(outcome=Outcome.FAIL)
    for name in ("t2", "t1"):
        say(played, name, 0, "umbrella", "FAIL", **ADA)
    assert take_turn(played, wanted, person="Ada", at=NOW, after=("t1", 0)) == ("t3", 0)
    assert take_turn(played, wanted, person="Bob", at=NOW, after=("t1", 0)) is None
    assert take_turn(played, wanted, person="Ada", at=NOW, after=("t3", 0), backwards=True) is None


def test_a_place_and_a_draft_outlive_the_browser(played: Log) -> None:
    wanted = QueueFilter(outcome=Outcome.FAIL)
    take_turn(played, wanted, person="Ada", at=NOW)
    take_turn(played, wanted, person="Ada", at=NOW, after=("t3", 0))
    keep_draft(played, "Ada", wanted.name, "it rai")
    tomorrow = NOW + timedelta(days=1)
    assert resume_turn(played, wanted, person="Ada", at=tomorrow) == ("t2", 0)
    place = place_of(played, "Ada", wanted.name)
    assert place is not None and place.draft == "it rai"
    say(played, "t2", 0, "umbrella", "FAIL", **ADA)  # asks-weather is open, but not asked for
    assert resume_turn(played, wanted, person="Ada", at=tomorrow) == ("t1", 0)
    assert resume_turn(played, QueueFilter(), person="Ada", at=tomorrow) == ("t3", 0)
    place = place_of(played, "Ada", wanted.name)
    assert place is not None and (place.turn, place.draft) == (("t1", 0), "")


def test_undo_takes_back_the_newest_word_and_keeps_it_in_the_log(played: Log) -> None:
    """0.875 by the judge; 1 with umbrella PASSed, 0.5 with asks-weather FAILed, too."""
    say(played, "t1", 0, "umbrella", "PASS", **ADA)
    say(played, "t1", 0, "asks-weather", "FAIL", **ADA)
    say(played, "t1", 0, "asks-weather", "PASS", person="Bob", reason="It is asked.")
    assert value(played, "t1") == 1.0
    assert undo(played, person="Bob") is not None
    assert value(played, "t1") == 0.5  # Ada's word counts again
    undone = undo(played, person="Ada")
    assert undone is not None and (undone.said.item_key, undone.said.outcome) == ("asks-weather", "FAIL")
    assert value(played, "t1") == 1.0
    assert undo(played, person="Ada") is not None and value(played, "t1") == 0.875
    assert undo(played, person="Ada") is None
    assert pairs_with_people(played) == []
    with played.lookup() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM verdict WHERE source = 'human'").scalar()
    assert rows == 3
    passed = sum_counts(verdict_cube(played), "version")
    assert sum(counts.passed for counts in passed.values()) == 6


def test_undo_brings_a_bad_item_back(played: Log) -> None:
    say(played, "t1", 1, "answers-thanks", "PASS", **ADA)
    call_bad(played, "t2", 0, "umbrella", **ADA)
    assert rewards_of(played, ["t3"])["t3"].value == 1.0
    undone = undo(played, person="Ada")
    assert undone is not None and undone.said.outcome is None and undone.revised is not None
    assert rewards_of(played, ["t3"])["t3"].value == 0.875
    again = undo(played, person="Ada")
    assert again is not None and again.said.item_key == "answers-thanks"


def test_what_was_said_at_once_is_taken_back_at_once(played: Log) -> None:
    say(played, "t1", 0, "umbrella", "PASS", **ADA)
    for name in ("t1", "t2"):
        turn = read_turn(played, (name, 0))
        assert turn is not None
        agree(played, turn, person="Ada")
    undone = undo(played, person="Ada")
    assert undone is not None and undone.said.trajectory_id == "t2"
    assert [(one.item_key, one.outcome) for one in undone.together] == [("asks-weather", "PASS"), ("umbrella", "FAIL")]
    again = undo(played, person="Ada")
    assert again is not None and [one.item_key for one in again.together] == ["asks-weather"]
    last = undo(played, person="Ada")
    assert last is not None and [one.item_key for one in last.together] == ["umbrella"]
    assert undo(played, person="Ada") is None


def test_undo_goes_on_where_a_bad_item_cannot_be_put_back(played: Log) -> None:
    """An operator brought one back, of another the checklist was written anew, of a third the dialogue is deleted."""
    asks, umbrella = SCENARIO.turns[0].checklist
    say(played, "t1", 1, "answers-thanks", "PASS", **ADA)
    call_bad(played, "t1", 0, "asks-weather", **ADA)
    whole = Checklist(SCENARIO.hash, 0, (asks, umbrella), revision=1, author="ann", reason="it is needed")
    revise_checklist(played, whole)
    assert ids_called_bad(played) == set()
    call_bad(played, "t2", 0, "umbrella", **ADA)
    fresh = asks.model_copy(update={"id": "fresh", "question": "Is it fresh?", "weight": 1.0})
    add_checklists(played, [Checklist(SCENARIO.hash, 0, (fresh,), author="annotator")])
    call_bad(played, "t3", 1, "answers-thanks", **ADA)
    delete_trajectories(played, ["t3"])
    undone = undo(played, person="Ada")
    assert undone is not None and undone.said.trajectory_id == "t3" and undone.revised is not None
    assert [item.id for item in undone.revised.checklists[0].items] == ["answers-thanks"]
    undone = undo(played, person="Ada")
    assert undone is not None and undone.said.item_key == "umbrella" and undone.revised is not None
    assert undone.revised.checklists == [] and ids_called_bad(played) == set()
    undone = undo(played, person="Ada")
    assert undone is not None and (undone.said.item_key, undone.said.outcome) == ("answers-thanks", "PASS")
    assert undo(played, person="Ada") is None


def test_an_item_that_an_edit_left_out_does_not_keep_its_turns_open(played: Log) -> None:
    say(played, "t3", 0, "asks-weather", "PASS", **ADA)
    assert ("t3", 0) in walk(played)
    asks, umbrella = SCENARIO.turns[0].checklist
    alone = asks.model_copy(update={"weight": 1.0})
    revise_checklist(played, Checklist(SCENARIO.hash, 0, (alone,), author="ann", reason="a matter of taste"))
    assert ("t3", 0) not in walk(played) and ("t2", 0) in walk(played)
    assert walk(played, QueueFilter(outcome=Outcome.FAIL)) == []
    with pytest.raises(LogError, match=r"for ann left it out \(a matter of taste\)"):
        say(played, "t3", 0, "umbrella", "PASS", **ADA)
    back = Checklist(SCENARIO.hash, 0, (asks, umbrella), revision=1, author="ben", reason="it is not")
    revise_checklist(played, back)
    assert ("t3", 0) in walk(played)


def test_what_cannot_be_withdrawn(played: Log) -> None:
    verdict = verdicts_of(played, ["t1"])["t1"][0]
    assert verdict.id is not None
    with pytest.raises(LogError, match="is no person's"):
        withdraw_verdict(played, verdict.id, person="Ada", reason="no")
    with pytest.raises(LogError, match="no verdict 4711"):
        withdraw_verdict(played, 4711, person="Ada", reason="no")
    say(played, "t1", 0, "umbrella", "PASS", **ADA)
    mine = next(v for v in verdicts_of(played, ["t1"])["t1"] if v.source is VerdictSource.HUMAN)
    assert mine.id is not None
    withdraw_verdict(played, mine.id, person="Ada", reason="no")
    with pytest.raises(LogError, match="was taken back before"):
        withdraw_verdict(played, mine.id, person="Ada", reason="no")


def test_agreeing_says_what_the_judge_said_and_leaves_the_unscored_open(played: Log) -> None:
    add_verdict(played, SCENARIO, "UNSCORED", trajectory_id="t2")
    turn = read_turn(played, ("t2", 0))
    assert turn is not None
    (told,) = agree(played, turn, person="Ada")
    assert (told.verdict.item_key, told.verdict.outcome, told.verdict.step_index) == ("asks-weather", "PASS", 0)
    assert told.verdict.reason == "agrees with big-judge"
    turn = read_turn(played, ("t2", 0))
    assert turn is not None and [one.item.id for one in turn.items if one.is_open] == ["umbrella"]
    assert say_of(played, turn, "umbrella", Outcome.FAIL, person="Ada", reason="").verdict.reason.startswith(
        "disagrees"
    )


def test_agreeing_speaks_only_of_what_the_queue_asks_for(played: Log) -> None:
    """Nobody looked at the others: an agreement on them would count for the judge."""
    turn = read_turn(played, ("t2", 0))
    assert turn is not None
    (told,) = agree(played, turn, person="Ada", wanted=QueueFilter(outcome=Outcome.FAIL))
    assert (told.verdict.item_key, told.verdict.outcome) == ("umbrella", "FAIL")
    turn = read_turn(played, ("t3", 0))
    asks = item_ids(played, SCENARIO.hash)[0, "asks-weather"]
    assert turn is not None and not turn.agreeable(QueueFilter(item_id=asks, outcome=Outcome.FAIL))
    (told,) = agree(played, turn, person="Ada", wanted=QueueFilter(item_id=asks))
    assert told.verdict.item_key == "asks-weather"
    assert len(pairs_with_people(played)) == 2


def test_a_turn_that_is_not_there_is_not_claimed(played: Log) -> None:
    claim_turn(played, ("t3", 0), person="Ada", at=NOW)
    with pytest.raises(LogError, match="turn 9 of trajectory 't3' is not in the log"):
        claim_turn(played, ("t3", 9), person="Ada", at=NOW)
    (claim,) = claims_of_others(played, "Bob", NOW)
    assert (claim.trajectory_id, claim.turn_index) == ("t3", 0)


def test_pace_counts_a_sitting_without_its_pauses() -> None:
    at = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    moments = [at - timedelta(seconds=20 * n) for n in range(10)] + [at - timedelta(minutes=40), at - timedelta(days=1)]
    pace = count_pace(moments, at, at.replace(hour=0))
    assert (pace.turns_today, pace.turns, pace.per_hour) == (11, 10, 180.0)
    assert count_pace(moments[:2], at, at.replace(hour=0)).per_hour is None


def test_pace_leaves_out_what_was_taken_back(played: Log) -> None:
    say(played, "t1", 0, "umbrella", "PASS", **ADA)
    say(played, "t1", 0, "asks-weather", "PASS", **ADA)
    say(played, "t2", 0, "umbrella", "PASS", **ADA)
    assert pace_of(played, "Ada", datetime.now(UTC)).turns == 2
    undo(played, person="Ada")
    assert pace_of(played, "Ada", datetime.now(UTC)).turns == 1
