"""What the dashboard and the demo's table count: read-only aggregates over the log, few queries each.

Reads every table, writes none. Which verdict counts is said in store/standing.py; sums of them are kept with them
(store/tallies.py). Rates leave UNSCORED verdicts out and give their number beside (invariant 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from store.database import Log
from store.schema import (
    ChecklistRow,
    GateRow,
    ItemObjectionRow,
    ItemRow,
    LogChangeRow,
    MetricRow,
    ModelCallRow,
    RateTallyRow,
    RestorationRow,
    ReviewSampleRow,
    RewardRow,
    RunRow,
    ScenarioRow,
    StageRow,
    StepRow,
    ToolCallRow,
    TrajectoryRow,
    TurnRow,
    VerdictRow,
    VersionRow,
    VersionStateRow,
    WithdrawalRow,
)
from store.standing import newest_reward
from store.vocabulary import Origin, VersionState

OUTCOMES = ("passed", "failed", "unscored")
"""Sums of verdicts, as `Counts` takes them."""


@dataclass(frozen=True)
class Counts:
    """Verdicts by outcome."""

    passed: int = 0
    failed: int = 0
    unscored: int = 0

    @property
    def judged(self) -> int:
        return self.passed + self.failed

    @property
    def total(self) -> int:
        return self.judged + self.unscored

    @property
    def rate(self) -> float | None:
        """Share of the judged that passed; None if nothing was judged."""
        return self.passed / self.judged if self.judged else None

    @property
    def coverage(self) -> float | None:
        """Share of all verdicts that are PASS or FAIL; None without verdicts."""
        return self.judged / self.total if self.total else None

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.passed + other.passed, self.failed + other.failed, self.unscored + other.unscored)


@dataclass(frozen=True)
class VerdictCell:
    """One cell of the verdict cube: counts for one combination of everything the overview slices by."""

    version: str
    origin: str
    batch: str
    domain: str
    seen: bool
    kind: str
    counts: Counts


@dataclass(frozen=True)
class EvaluationReward:
    """The newest reward of one evaluation dialogue; `value` is None where it was excluded."""

    trajectory_id: str
    batch: str
    version: str
    scenario_hash: str
    member: int
    domain: str
    seen: bool
    split: str
    value: float | None
    fully_passed: bool | None
    created_at: datetime


@dataclass(frozen=True)
class VersionFigures:
    """A policy version with its state now and since when it is in it."""

    name: str
    parent: str | None
    run: str | None
    state: str
    since: datetime
    reason: str
    figures: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Facets:
    """What there is to filter by, each in a fixed order."""

    origins: tuple[str, ...]
    batches: tuple[str, ...]
    domains: tuple[str, ...]
    versions: tuple[str, ...]
    stop_reasons: tuple[str, ...]


@dataclass(frozen=True)
class LogCounts:
    trajectories: int
    turns: int
    steps: int
    tool_calls: int
    sampled_tokens: int
    verdicts: int
    forked: int = 0
    """Steps before which the client rewrote history."""


def as_utc(moment: datetime) -> datetime:
    """SQLite gives datetimes back without their zone; they were written in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def log_state(log: Log) -> tuple[Any, ...]:
    """A cheap fingerprint that changes whenever judged figures can have changed; the key of cached aggregates.

    New rows show in the greatest id of their table; what changes rows in place or removes them is counted
    (store/changes.py).
    """
    judging = (VerdictRow.id, WithdrawalRow.id, RewardRow.id, ItemRow.id, ReviewSampleRow.id, ModelCallRow.id)
    items = (ChecklistRow.id, ItemObjectionRow.id, RestorationRow.id)
    tables = (*judging, *items, StepRow.id, VersionStateRow.id, GateRow.id, MetricRow.id)
    columns = [select(func.max(column)).scalar_subquery() for column in tables]
    columns.append(select(func.max(TrajectoryRow.created_at)).scalar_subquery())
    columns.append(select(func.count()).select_from(StageRow).scalar_subquery())
    columns.append(select(func.sum(LogChangeRow.times)).scalar_subquery())
    with log.reading() as session:
        return tuple(session.execute(select(*columns)).one())


def log_counts(log: Log) -> LogCounts:
    """Sizes of the log, in rows and sampled tokens."""
    with log.reading() as session:
        sizes = [
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (TrajectoryRow, TurnRow, StepRow, ToolCallRow)
        ]
        tokens = session.scalar(select(func.sum(StepRow.sampled_tokens))) or 0
        verdicts = session.scalar(select(func.count()).select_from(VerdictRow)) or 0
        forked = session.scalar(select(func.count()).select_from(StepRow).where(StepRow.forked)) or 0
    trajectories, turns, steps, tool_calls = sizes
    return LogCounts(trajectories, turns, steps, tool_calls, int(tokens), verdicts, forked)


def is_empty(log: Log) -> bool:
    """Whether nothing was ever played or said."""
    with log.lookup() as connection:
        return connection.execute(select(TrajectoryRow.id).limit(1)).first() is None


def unseen_domains(log: Log) -> set[str]:
    """Domains that no training scenario is of."""
    with log.lookup() as connection:
        return set(connection.scalars(select(ScenarioRow.domain).where(~ScenarioRow.seen).distinct()))


def facets(log: Log) -> Facets:
    """The values that filters offer; batches in the order in which they were first played."""
    with log.reading() as session:
        origins = session.scalars(select(TrajectoryRow.origin).distinct().order_by(TrajectoryRow.origin)).all()
        batches = session.scalars(
            select(TrajectoryRow.batch)
            .where(TrajectoryRow.batch.is_not(None))
            .group_by(TrajectoryRow.batch)
            .order_by(func.min(TrajectoryRow.created_at))
        ).all()
        domains = session.scalars(select(ScenarioRow.domain).distinct().order_by(ScenarioRow.domain)).all()
        versions = session.scalars(
            select(TrajectoryRow.version)
            .where(TrajectoryRow.version.is_not(None))
            .distinct()
            .order_by(TrajectoryRow.version)
        ).all()
        stops = session.scalars(
            select(TrajectoryRow.stop_reason).where(TrajectoryRow.stop_reason.is_not(None)).distinct()
        ).all()
    return Facets(
        tuple(origins),
        tuple(b for b in batches if b),
        tuple(domains),
        tuple(v for v in versions if v),
        tuple(sorted(s for s in stops if s)),
    )


def verdict_cube(log: Log) -> list[VerdictCell]:
    """Every verdict that counts, by version, origin, batch, domain and kind; read from sums kept with the verdicts."""
    row = RateTallyRow
    keys = (row.version, row.origin, row.batch, row.domain, row.seen, row.kind)
    sums = (func.sum(row.passed), func.sum(row.failed), func.sum(row.unscored))
    query = select(*keys, *sums).group_by(*keys).having(func.sum(row.passed + row.failed + row.unscored) > 0)
    with log.lookup() as connection:
        return [
            VerdictCell(
                version=cell[0] or "unknown",
                origin=cell[1],
                batch=cell[2],
                domain=cell[3],
                seen=cell[4],
                kind=cell[5],
                counts=Counts(*map(int, cell[6:])),
            )
            for cell in connection.execute(query.order_by(*keys))
        ]


class Slice(StrEnum):
    """What rates are shown by: columns of `rate_tally`."""

    VERSION = "version"
    DAY = "day"
    DOMAIN = "domain"
    TOOL = "tool"
    KIND = "kind"
    CHANNEL = "channel"
    ORIGIN = "origin"


NO_TOOL = "no tool"
"""Of items that are about none."""


def rates_by(
    log: Log,
    by: Slice,
    *,
    origin: str | None = None,
    batch: str | None = None,
    domain: str | None = None,
    version: str | None = None,
    since: str | None = None,
) -> dict[str, Counts]:
    """Verdicts that count by one thing, in sorted order; of an unknown version "unknown", of no tool "no tool".

    `since` is a day, "2026-05-14": dialogues that began on it or later.
    """
    row = RateTallyRow
    column = getattr(row, by.value)
    query = (
        select(column, func.sum(row.passed), func.sum(row.failed), func.sum(row.unscored))
        .group_by(column)
        .having(func.sum(row.passed + row.failed + row.unscored) > 0)
        .order_by(column)
    )
    for wanted, value in ((row.origin, origin), (row.batch, batch), (row.domain, domain), (row.version, version)):
        if value is not None:
            query = query.where(wanted == value)
    if since is not None:
        query = query.where(row.day >= since)
    unnamed = NO_TOOL if by is Slice.TOOL else "unknown"
    with log.lookup() as connection:
        return {name or unnamed: Counts(*map(int, counts)) for name, *counts in connection.execute(query)}


def evaluation_rewards(log: Log) -> list[EvaluationReward]:
    """The newest reward of every evaluation dialogue that has one, in the order of play."""
    query = (
        select(
            TrajectoryRow.id,
            func.coalesce(TrajectoryRow.batch, ""),
            func.coalesce(TrajectoryRow.version, "unknown"),
            ScenarioRow.hash,
            TrajectoryRow.member,
            ScenarioRow.domain,
            ScenarioRow.seen,
            ScenarioRow.split,
            RewardRow.value,
            RewardRow.fully_passed,
            TrajectoryRow.created_at,
        )
        .select_from(TrajectoryRow)
        .join(RewardRow, RewardRow.id == newest_reward())
        .join(ScenarioRow, ScenarioRow.hash == TrajectoryRow.scenario_hash)
        .where(TrajectoryRow.origin == Origin.EVALUATION.value)
        .order_by(TrajectoryRow.created_at, TrajectoryRow.id)
    )
    with log.reading() as session:
        return [EvaluationReward(*row[:10], created_at=as_utc(row[10])) for row in session.execute(query)]


def version_figures(log: Log) -> list[VersionFigures]:
    """Every policy version, oldest first, with its newest state."""
    later = aliased(VersionStateRow)
    newest = (
        select(func.max(later.id)).where(later.version == VersionRow.name).correlate(VersionRow)
    ).scalar_subquery()
    query = (
        select(VersionRow, VersionStateRow.state, VersionStateRow.created_at, VersionStateRow.reason, RunRow.name)
        .select_from(VersionRow)
        .outerjoin(VersionStateRow, VersionStateRow.id == newest)
        .outerjoin(RunRow, RunRow.id == VersionRow.run_id)
        .order_by(VersionRow.name)
    )
    with log.reading() as session:
        return [
            VersionFigures(
                name=row.name,
                parent=row.parent,
                run=run,
                state=state or VersionState.CANDIDATE.value,
                since=as_utc(since or row.created_at),
                reason=reason or "",
                figures=dict(row.figures or {}),
                created_at=as_utc(row.created_at),
            )
            for row, state, since, reason, run in session.execute(query)
        ]


def sum_counts(cells: Sequence[VerdictCell], by: str) -> dict[Any, Counts]:
    """Counts of the cells, added up by one field of `VerdictCell`, in sorted order."""
    sums: dict[Any, Counts] = {}
    for cell in cells:
        value = getattr(cell, by)
        sums[value] = sums.get(value, Counts()) + cell.counts
    return dict(sorted(sums.items()))
