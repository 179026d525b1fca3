"""The overview's alerts and failure patterns as HTML. Pure."""

from collections.abc import Sequence

from dashboard.format import percent, plural
from dashboard.links import JOBS, JUDGES, OVERVIEW, TRAJECTORIES, address
from dashboard.text import chip, escape, link, soft, table
from dashboard.theme import ACCENT, CONTRAST, NEUTRAL
from reward.failure_patterns import MEANING, FailurePattern, PatternFigures, Patterns
from reward.rate_alerts import Alert, AlertKind
from store.failures import FailedItem
from store.figures import Coverage

SHOWN_TURNS = 30


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


def coverage_note(coverage: Coverage | None) -> str:
    """What stands beside a rate: how many of the dialogues it could stand on it does stand on."""
    if coverage is None:
        return ""
    return f"{coverage.judged:,} of {coverage.eligible:,} eligible dialogues judged ({percent(coverage.share)})"


def pattern_rows(patterns: Patterns, parameters: dict[str, str]) -> str:
    """A row a pattern; its name is the way to the turns behind it."""
    rows = [
        (
            link(one.pattern, f"{address(OVERVIEW, **parameters, pattern=one.pattern)}#failure-patterns"),
            soft(MEANING[one.pattern]),
            f"{one.items:,}",
            f"{percent(one.share, 1)}",
            _trend(one),
        )
        for one in patterns.figures
    ]
    before = f"in {patterns.before}" if patterns.before else "before"
    return table(("what went wrong", "", "items", "of dialogues", before), rows, numeric=(2, 3, 4))


def _trend(one: PatternFigures) -> str:
    if one.share_before is None:
        return "–"
    change = one.share - one.share_before
    symbol, color = ("■", NEUTRAL) if abs(change) < 0.005 else ("▲", CONTRAST) if change > 0 else ("▼", ACCENT)
    return f'<span style="color:{color}">{symbol}</span> {percent(one.share_before, 1)}'


def turns_behind(pattern: FailurePattern, failed: Sequence[FailedItem]) -> str:
    """The newest failures of one pattern, each with the way to its turn."""
    rows = [
        (
            link(
                f"turn {one.turn_index + 1} of {one.trajectory_id}",
                f"{address(TRAJECTORIES, trajectory=one.trajectory_id)}#turn-{one.turn_index + 1}",
            ),
            escape(one.question),
            escape(one.reason[:300]),
        )
        for one in failed[:SHOWN_TURNS]
    ]
    more = f", the newest {SHOWN_TURNS} of them" if len(failed) > SHOWN_TURNS else ""
    heading = f"<b>{escape(pattern)}</b> {soft(plural(len(failed), 'item') + more)}"
    return heading + table(("turn", "item", "why it failed"), rows, fill=True)
