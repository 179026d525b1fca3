"""The overview's alerts and failure patterns as HTML. Pure."""

from collections.abc import Mapping, Sequence

from dashboard.format import percent, plural
from dashboard.links import JOBS, JUDGES, OVERVIEW, REVIEW, TRAJECTORIES, address
from dashboard.text import chip, escape, link, soft, table
from dashboard.theme import ACCENT, CONTRAST, NEUTRAL
from reward.failure_patterns import MEANING, FailurePattern, PatternFigures, Patterns
from reward.rate_alerts import Alert, AlertKind
from store.coverage import Coverage
from store.failures import FailedItem
from store.figures import Counts
from store.vocabulary import Outcome

ALL = "all"
"""No filter."""
SHOWN_TURNS = 30
"""On a page."""
PATTERNS = "failure-patterns"
"""The place of the patterns on the page."""


def alert_rows(alerts: Sequence[Alert]) -> str:
    """A row an alert, with the way to what it is about."""
    rows = [(chip(alert.kind), _about(alert), escape(alert.detail)) for alert in alerts]
    return table(("alert", "about", "what happened"), rows, fill=True)


def _about(alert: Alert) -> str:
    if alert.job_id is not None:
        return link(alert.where, address(JOBS, job=alert.job_id))
    if alert.schedule is not None:
        return link(alert.where, address(JOBS, schedule=alert.schedule))
    return link(alert.where, address(JUDGES)) if alert.kind is AlertKind.JUDGE_ERRORS else escape(alert.where)


def coverage_note(coverage: Coverage) -> str:
    """What stands beside a rate: how many of the dialogues it could stand on it does stand on."""
    return f"{coverage.judged:,} of {coverage.eligible:,} dialogues ({percent(coverage.share)})"


def coverage_notes(coverage: Mapping[str, Coverage], counts: Mapping[str, Counts]) -> dict[str, str]:
    """For each label of `counts`; a label of no eligible dialogue (what it was judged on is not ended, say) says so."""
    return {name: coverage_note(coverage[name]) if name in coverage else "no dialogue is eligible" for name in counts}


def unjudged_note(coverage: Mapping[str, Coverage], counts: Mapping[str, Counts]) -> str:
    """Labels that have no rate at all, for no verdict is about them; empty if there are none."""
    left = [
        f"{name} ({found.judged:,} of {found.eligible:,} dialogues)"
        for name, found in coverage.items()
        if name not in counts
    ]
    return f"Not judged: {', '.join(left)}" if left else ""


def pattern_rows(patterns: Patterns, parameters: Mapping[str, str]) -> str:
    """A row a pattern, with its shares over the versions; its name is the way to the turns behind it. `parameters`: the
    filters of the page, which the way keeps."""
    rows = [
        (
            link(one.pattern, f"{address(OVERVIEW, **parameters, pattern=one.pattern)}#{PATTERNS}"),
            soft(MEANING[one.pattern]),
            f"{one.items:,}",
            *(percent(share, 1) for share in one.trend),
            f"{_change(one)}{percent(one.share, 1)}",
        )
        for one in patterns.figures
    ]
    versions = (*patterns.earlier, patterns.version)
    columns = ("what went wrong", "", "items", *versions)
    return table(columns, rows, numeric=range(2, len(columns)))


def _change(one: PatternFigures) -> str:
    if one.share_before is None:
        return ""
    change = one.share - one.share_before
    symbol, color = ("■", NEUTRAL) if abs(change) < 0.005 else ("▲", CONTRAST) if change > 0 else ("▼", ACCENT)
    return f'<span style="color:{color}">{symbol}</span> '


def turns_behind(pattern: FailurePattern, failed: Sequence[FailedItem], first: int, version: str) -> str:
    """The failures of one pattern from the number `first` on, as many as a page holds, each with the way to its turn:
    to read it, and to correct the judge in the queue of what failed in this version."""
    rows = []
    for one in failed[first : first + SHOWN_TURNS]:
        turn = f"{one.trajectory_id}:{one.turn_index}"
        queue = {"verdict": Outcome.FAIL.value, "of_version": version}
        rows.append(
            (
                link(
                    f"turn {one.turn_index + 1} of {one.trajectory_id}",
                    f"{address(TRAJECTORIES, trajectory=one.trajectory_id)}#turn-{one.turn_index + 1}",
                ),
                link("review", address(REVIEW, turn=turn, focus=one.key, **queue)),
                escape(one.question),
                escape(one.reason[:300]),
            )
        )
    heading = f"<b>{escape(pattern)}</b> {soft(plural(len(failed), 'item') + ', the newest dialogues first')}"
    return heading + table(("turn", "", "item", "why it failed"), rows, fill=True)
