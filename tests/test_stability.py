"""Flips between repeated judgments and drift on the anchor set, against arithmetic by hand."""

from datetime import UTC, datetime

import pytest

from reward.stability import Standard, measure_drift, measure_flips, period_of
from store.agreement import AnchorVerdict, Repeat
from store.vocabulary import Outcome, Period


def repeat(passed: int, failed: int, unscored: int = 0, trajectory: str = "t1") -> Repeat:
    return Repeat(trajectory, "big-judge", None, "llm", "user_visible_reply", passed, failed, unscored)


def anchor(item: int, outcome: str, day: str, person: str | None = None, judge: str = "big-judge") -> AnchorVerdict:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    said = None if person is None else Outcome(person)
    return AnchorVerdict(f"t{item}", 0, item, judge, None, Outcome(outcome), said, moment)


def test_flips_by_hand() -> None:
    """PASS PASS FAIL: of 3 pairs 2 differ. FAIL FAIL: of 1 pair none. PASS and an UNSCORED: no pair. 2 of 4 differ."""
    found = measure_flips([repeat(2, 1), repeat(0, 2), repeat(1, 0, unscored=1)], seed=1)
    assert (found.items, found.pairs, found.differing, found.unscored) == (2, 4, 2, 1)
    assert found.rate.value == 0.5
    assert found.rate.why == "1 trajectory: too few for an interval"


def test_flips_of_many_trajectories_have_an_interval() -> None:
    """100 trajectories with one pair each, 20 of which differ: 1.96 · sqrt(0.2 · 0.8 / 100) = 0.078."""
    found = measure_flips([repeat(1 if n < 20 else 2, 1 if n < 20 else 0, 0, f"t{n}") for n in range(100)], seed=1)
    assert found.rate.value == 0.2
    assert found.rate.low is not None and found.rate.high is not None
    assert (found.rate.high - found.rate.low) / 2 == pytest.approx(0.078, abs=0.01)


def test_nothing_was_asked_twice() -> None:
    found = measure_flips([repeat(1, 0, 3)], seed=1)
    assert (found.pairs, found.rate.value, found.rate.why) == (0, None, "nothing was judged twice")


def test_drift_by_hand() -> None:
    """Week 45: items 1 and 2 as the person says. Week 46: item 2 flips, item 1 is not asked: 0 of 1 right, and other
    than at first. Week 47: both asked, item 2 is back: 2 of 2 right, 2 of 2 as at first; of two verdicts in one week
    the later one counts."""
    said = [
        anchor(1, "PASS", "2026-11-02", person="PASS"),
        anchor(2, "FAIL", "2026-11-03", person="FAIL"),
        anchor(2, "PASS", "2026-11-10", person="FAIL"),
        anchor(1, "PASS", "2026-11-16", person="PASS"),
        anchor(2, "PASS", "2026-11-16", person="FAIL"),
        anchor(2, "FAIL", "2026-11-18", person="FAIL"),
    ]
    lines = measure_drift(said, Period.WEEK, seed=1)
    shown = [(line.standard, line.period, line.agreement.n, line.agreement.raw.value) for line in lines]
    assert shown == [
        (Standard.FIRST, "2026-W46", 1, 0.0),
        (Standard.FIRST, "2026-W47", 2, 1.0),
        (Standard.PEOPLE, "2026-W45", 2, 1.0),
        (Standard.PEOPLE, "2026-W46", 1, 0.0),
        (Standard.PEOPLE, "2026-W47", 2, 1.0),
    ]
    assert lines[4].agreement.kappa.value == 1.0


def test_drift_needs_no_person_and_keeps_judges_apart() -> None:
    said = [
        anchor(1, "UNSCORED", "2026-10-01"),
        anchor(1, "PASS", "2026-10-05"),
        anchor(1, "FAIL", "2026-11-05"),
        anchor(1, "PASS", "2026-11-06", judge="other"),
        anchor(1, "UNSCORED", "2026-12-05"),
    ]
    lines = measure_drift(said, Period.MONTH, seed=1)
    assert [(line.judge, line.standard, line.period) for line in lines] == [
        ("big-judge", Standard.FIRST, "2026-11"),
        ("big-judge", Standard.FIRST, "2026-12"),
    ]
    assert (lines[0].agreement.n, lines[0].agreement.raw.value) == (1, 0.0)
    assert (lines[1].agreement.n, lines[1].agreement.judge_unscored) == (0, 1)


@pytest.mark.parametrize(
    ("period", "label"), [(Period.DAY, "2027-01-01"), (Period.WEEK, "2026-W53"), (Period.MONTH, "2027-01")]
)
def test_periods_are_those_of_the_calendar(period: Period, label: str) -> None:
    """1 January 2027 is a Friday: its week is the 53rd of 2026."""
    assert period_of(datetime(2027, 1, 1, 12, tzinfo=UTC), period) == label
