"""What somebody should look at: a pass rate that fell, judges that fail, jobs that failed, schedules that were missed.

The comparisons are pure. A rate fell when the whole interval of the difference lies below 0 and the fall is of two
points or more: on a large log every difference is certain, and few of them matter. The interval is Newcombe's, at
95 % for all comparisons of one kind together (Bonferroni), since twenty slices looked at find a fall by chance.
Verdicts of one dialogue hang together, which makes the intervals somewhat too narrow: an alert is a reason to look, the
gate decides on paired scenarios (docs/overview.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from reward.intervals import wilson
from store.database import Log
from store.figures import Counts, Slice, rates_by
from store.trouble import JudgeCalls, failed_jobs, judge_calls, missed_firings, overdue_schedules
from store.vocabulary import Origin

LEAST_FALL = 0.02
FEWEST = 30
"""Judged verdicts that a rate needs on either side."""
JUDGE_ERRORS = 0.02
"""Share of the calls to a judge that may fail."""
LOOK_BACK = timedelta(hours=24)
SLICES = (Slice.DOMAIN, Slice.KIND, Slice.CHANNEL, Slice.TOOL)


class AlertKind(StrEnum):
    RATE_FELL = "rate fell"
    UNSCORED_ROSE = "unscored rose"
    JUDGE_ERRORS = "judge errors"
    JOB_FAILED = "job failed"
    SCHEDULE_MISSED = "schedule missed"


@dataclass(frozen=True)
class Alert:
    kind: AlertKind
    where: str
    """What it is about: "evaluation, domain travel", a judge, a schedule."""
    detail: str
    job_id: int | None = None
    schedule: str | None = None


@dataclass(frozen=True)
class Fall:
    """A share before and after, with the interval of after − before."""

    before: float
    after: float
    low: float
    high: float


def difference(before: tuple[int, int], after: tuple[int, int], confidence: float) -> Fall:
    """Newcombe's interval of the difference of two independent shares, each given as (count, of how many).

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998), method 10. Raises ValueError for an empty side.
    """
    if not before[1] or not after[1]:
        raise ValueError(f"a share of nothing: {before} before, {after} after")
    first, second = wilson(*before, confidence), wilson(*after, confidence)
    middle = second.mean - first.mean
    low = middle - ((second.mean - second.low) ** 2 + (first.high - first.mean) ** 2) ** 0.5
    high = middle + ((second.high - second.mean) ** 2 + (first.mean - first.low) ** 2) ** 0.5
    return Fall(first.mean, second.mean, low, high)


def falls(before: Mapping[str, Counts], after: Mapping[str, Counts], comparisons: int) -> dict[str, Fall]:
    """The slices whose pass rate fell, the greatest fall first; `comparisons`: how many are made in all."""
    found = {}
    for name, counts in after.items():
        then = before.get(name, Counts())
        if min(then.judged, counts.judged) < FEWEST:
            continue
        one = difference((then.passed, then.judged), (counts.passed, counts.judged), _confidence(comparisons))
        if one.high < 0 and one.before - one.after >= LEAST_FALL:
            found[name] = one
    return dict(sorted(found.items(), key=lambda pair: pair[1].after - pair[1].before))


def unscored_rise(before: Counts, after: Counts) -> Fall | None:
    """The share of UNSCORED, where it rose beyond doubt and by two points or more."""
    if min(before.total, after.total) < FEWEST:
        return None
    one = difference((before.unscored, before.total), (after.unscored, after.total), _confidence(1))
    return one if one.low > 0 and one.after - one.before >= LEAST_FALL else None


def find_alerts(log: Log, at: datetime, *, missed_after_s: float) -> list[Alert]:
    """Everything there is to look at now."""
    since = at - LOOK_BACK
    found = [alert for origin in Origin for alert in _of_versions(log, origin)]
    found += [alert for origin in Origin for alert in _of_weeks(log, origin, at)]
    found += judge_alerts(judge_calls(log, since))
    found += [
        Alert(AlertKind.JOB_FAILED, f"job {job_id}, {kind}", error.splitlines()[0][:200] if error else "", job_id)
        for job_id, kind, error in failed_jobs(log, since)
    ]
    found += [
        Alert(AlertKind.SCHEDULE_MISSED, name, f"due {due}: {reason}", schedule=name)
        for name, due, reason in missed_firings(log, since)
    ]
    found += [
        Alert(AlertKind.SCHEDULE_MISSED, name, f"due {due:%Y-%m-%d %H:%M} UTC and not queued: no worker", schedule=name)
        for name, due in overdue_schedules(log, at - timedelta(seconds=missed_after_s))
    ]
    return found


def judge_alerts(calls: Iterable[JudgeCalls]) -> list[Alert]:
    """Judges of whose calls in the last day too many failed."""
    return [
        Alert(
            AlertKind.JUDGE_ERRORS,
            one.model,
            f"{one.failed:,} of {one.calls:,} calls failed in the last 24 hours; the last one: {one.error[:160]}",
        )
        for one in calls
        if one.failed / one.calls > JUDGE_ERRORS
    ]


def last_two(rates: Mapping[str, Counts]) -> tuple[str, str] | None:
    """The newest version of which enough is judged, and the one before it."""
    judged = well_judged(rates)
    return (judged[-2], judged[-1]) if len(judged) > 1 else None


def well_judged(rates: Mapping[str, Counts]) -> list[str]:
    """The versions of which enough is judged to speak of a rate, in the order of `rates`."""
    return [name for name, counts in rates.items() if counts.judged >= FEWEST and name != "unknown"]


def _of_versions(log: Log, origin: Origin) -> list[Alert]:
    pair = last_two(rates_by(log, Slice.VERSION, origin=origin))
    if pair is None:
        return []
    before, after = pair
    slices = [
        tuple(rates_by(log, by, origin=origin, version=version) for version in pair) for by in (Slice.ORIGIN, *SLICES)
    ]
    found = _falls(slices, origin, f"{after} after {before}")
    whole = [sides.get(origin.value, Counts()) for sides in slices[0]]
    if (rise := unscored_rise(whole[0], whole[1])) is not None:
        detail = f"{_percent(rise.before)} → {_percent(rise.after)} of all verdicts, {after} after {before}"
        found.append(Alert(AlertKind.UNSCORED_ROSE, origin.value, detail))
    return found


def _of_weeks(log: Log, origin: Origin, at: datetime) -> list[Alert]:
    """The last seven days against the seven before, today included."""
    days = [f"{at - timedelta(days=ago):%Y-%m-%d}" for ago in (6, 13)]
    slices = []
    for by in (Slice.ORIGIN, *SLICES):
        now = rates_by(log, by, origin=origin, since=days[0])
        both = rates_by(log, by, origin=origin, since=days[1])
        slices.append(({name: _less(counts, now.get(name, Counts())) for name, counts in both.items()}, now))
    return _falls(slices, origin, "the last 7 days after the 7 before")


def _falls(slices: Iterable[tuple[Mapping[str, Counts], ...]], origin: Origin, when: str) -> list[Alert]:
    sides = list(slices)
    comparisons = sum(len(after) for _, after in sides)
    found = []
    for by, (before, after) in zip(("", *SLICES), sides, strict=True):
        for name, fall in falls(before, after, comparisons).items():
            where = f"{origin}, {by} {name}" if by else origin.value
            points = f"{100 * (fall.after - fall.before):+.1f} points [{100 * fall.low:+.1f}, {100 * fall.high:+.1f}]"
            detail = f"{_percent(fall.before)} → {_percent(fall.after)}, {points}, {when}"
            found.append(Alert(AlertKind.RATE_FELL, where, detail))
    return found


def _less(both: Counts, now: Counts) -> Counts:
    return Counts(both.passed - now.passed, both.failed - now.failed, both.unscored - now.unscored)


def _confidence(comparisons: int) -> float:
    return 1 - 0.05 / max(1, comparisons)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
