"""When a rate counts as fallen, worked out by hand; and what a log with trouble in it raises."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from reward.rate_alerts import AlertKind, difference, falls, find_alerts, unscored_rise
from store.database import Log
from store.figures import Counts
from store.model_calls import ModelCall, add_model_calls
from store.schema import TrajectoryRow
from store.verdicts import add_verdicts
from store.vocabulary import ModelRole, Origin, Outcome
from tests.store_examples import a_scenario, start
from tests.test_tallies import verdict


def test_the_interval_of_a_difference_is_newcombe_s() -> None:
    # His first example: 56 of 70 against 48 of 80, interval 0.0524 to 0.3339.
    found = difference((48, 80), (56, 70), 0.95)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))
    with pytest.raises(ValueError, match="share of nothing"):
        difference((0, 0), (1, 2), 0.95)


def test_a_fall_is_certain_and_of_two_points() -> None:
    before = {"travel": Counts(900, 100), "shop": Counts(90_000, 10_000), "bank": Counts(9, 1), "music": Counts(90, 10)}
    after = {"travel": Counts(800, 200), "shop": Counts(89_000, 11_000), "bank": Counts(1, 9), "music": Counts(86, 14)}
    assert list(falls(before, after, 4)) == ["travel"]  # shop fell by one point, bank is ten verdicts, music is chance
    assert falls(after, before, 4) == {}


def test_a_rise_of_what_nobody_could_judge_is_one_too() -> None:
    assert unscored_rise(Counts(90, 10), Counts(70, 10, 20)) is not None
    assert unscored_rise(Counts(90, 10, 1), Counts(90, 9, 2)) is None


def test_a_log_in_which_a_version_fell_and_a_judge_fails_says_both(sqlite_log: Log) -> None:
    log, scenario = sqlite_log, a_scenario()
    for version, failing in (("v0001", 4), ("v0002", 20)):
        ids = [f"{version}-{n}" for n in range(40)]
        start(log, *ids, scenario=scenario, version=version, origin=Origin.EVALUATION)
        outcomes = [Outcome.FAIL if n < failing else Outcome.PASS for n in range(40)]
        add_verdicts(log, [verdict(log, name, "umbrella", said) for name, said in zip(ids, outcomes, strict=True)])
    now = datetime.now(UTC)
    assert {alert.kind for alert in find_alerts(log, now, missed_after_s=300)} == {AlertKind.RATE_FELL}
    failed = ModelCall(ModelRole.JUDGE, "big-judge", None, 0, 0, 0, None, 1.0, error="the endpoint said 500")
    add_model_calls(log, [failed])
    alerts = find_alerts(log, now, missed_after_s=300)
    fell = [alert for alert in alerts if alert.kind is AlertKind.RATE_FELL]
    assert (
        fell[0].where == "evaluation" and "90.0 % → 50.0 %" in fell[0].detail and "v0002 after v0001" in fell[0].detail
    )
    said = next(alert for alert in alerts if alert.kind is AlertKind.JUDGE_ERRORS)
    assert said.where == "big-judge" and "1 of 1 calls" in said.detail and "500" in said.detail
    assert not [alert for alert in find_alerts(log, now + timedelta(days=2), missed_after_s=300) if alert in [said]]


def judged_dialogues(log: Log, name: str, outcomes: Sequence[Outcome], began: datetime, version: str = "v0001") -> None:
    """Forty chats or so that began then, each with one verdict."""
    ids = [f"{name}-{n}" for n in range(len(outcomes))]
    start(log, *ids, scenario=a_scenario(), version=version, origin=Origin.ROLLOUT)
    with log.writing() as connection:
        table = TrajectoryRow.__table__
        connection.execute(update(table).where(table.c.id.in_(ids)).values(created_at=began))
    add_verdicts(log, [verdict(log, one, "umbrella", said) for one, said in zip(ids, outcomes, strict=True)])


def test_a_week_that_is_worse_than_the_one_before_it_is_an_alert(log: Log) -> None:
    now = datetime.now(UTC)
    good, bad = [Outcome.PASS] * 36 + [Outcome.FAIL] * 4, [Outcome.PASS] * 20 + [Outcome.FAIL] * 20
    judged_dialogues(log, "older", bad, now - timedelta(days=14))  # of neither week
    judged_dialogues(log, "before", good, now - timedelta(days=7))
    judged_dialogues(log, "today", bad, now)
    alerts = find_alerts(log, now, missed_after_s=300)
    whole = [alert for alert in alerts if alert.where == "rollout"]
    assert [alert.kind for alert in whole] == [AlertKind.RATE_FELL], alerts
    assert "90.0 % → 50.0 %" in whole[0].detail and "the last 7 days after the 7 before" in whole[0].detail
    assert find_alerts(log, now + timedelta(days=7), missed_after_s=300) == [], "that week has nothing judged"


def test_what_nobody_could_judge_under_the_newest_version_is_an_alert(log: Log) -> None:
    now = datetime.now(UTC)
    judged_dialogues(log, "before", [Outcome.PASS] * 40, now)
    judged_dialogues(log, "after", [Outcome.PASS] * 32 + [Outcome.UNSCORED] * 8, now, "v0002")
    (alert,) = find_alerts(log, now, missed_after_s=300)
    assert (alert.kind, alert.where) == (AlertKind.UNSCORED_ROSE, "rollout")
    assert alert.detail == "0.0 % → 20.0 % of all verdicts, v0002 after v0001"
