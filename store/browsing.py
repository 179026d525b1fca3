"""Finding trajectories: filtered pages of the list, the neighbours of one, and what each step of one cost.

Reads the log, writes nothing. Everything is filtered and paged in SQL; a page costs five queries, whatever the
log's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from store.database import Log
from store.figures import Counts, as_utc
from store.schema import (
    ItemRow,
    RewardRow,
    RunTrajectoryRow,
    ScenarioRow,
    StepRow,
    ToolCallRow,
    TrajectoryRow,
    TurnRow,
    VerdictRow,
)
from store.standing import outcome_sums, winning_verdicts

RUNNING = "running"
"""Stands for "has not ended" where a stop reason is asked for."""


@dataclass(frozen=True)
class TrajectoryFilter:
    """Which trajectories; None means any. `low` and `high` bound the newest reward, ends included."""

    trajectory_id: str | None = None
    origin: str | None = None
    version: str | None = None
    domain: str | None = None
    batch: str | None = None
    stop_reason: str | None = None
    low: float | None = None
    high: float | None = None
    item_id: int | None = None
    kind: str | None = None
    outcome: str | None = None
    """With `item_id` or `kind`: only where that item's verdict is this one."""
    run_id: int | None = None


@dataclass(frozen=True)
class TrajectoryListing:
    """One line of the list."""

    id: str
    created_at: datetime
    origin: str
    scenario: str | None
    domain: str | None
    seen: bool | None
    batch: str | None
    version: str | None
    stop_reason: str
    reward: float | None
    fully_passed: bool | None
    excluded_reason: str | None
    verdicts: Counts
    turns: int
    steps: int
    sampled_tokens: int
    opening: str
    """The first user message."""


@dataclass(frozen=True)
class StepFigures:
    """What a step cost and which weights sampled it. Tokens are counts, latency is in milliseconds."""

    turn_index: int
    index: int
    version: str
    context_tokens: int
    sampled_tokens: int
    latency_ms: float
    finish_reason: str | None
    trainable: bool
    untrainable_reason: str | None
    fork: bool
    """Its parent already had another child: a client rewrote history here (invariant 1)."""


def _newest_reward() -> ColumnElement[int]:
    later = aliased(RewardRow)
    return (
        select(func.max(later.id)).where(later.trajectory_id == TrajectoryRow.id).correlate(TrajectoryRow)
    ).scalar_subquery()


def _conditions(wanted: TrajectoryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (TrajectoryRow.id, wanted.trajectory_id),
        (TrajectoryRow.origin, wanted.origin),
        (TrajectoryRow.version, wanted.version),
        (TrajectoryRow.batch, wanted.batch),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.stop_reason == RUNNING:
        conditions.append(TrajectoryRow.stop_reason.is_(None))
    elif wanted.stop_reason is not None:
        conditions.append(TrajectoryRow.stop_reason == wanted.stop_reason)
    if wanted.domain is not None:
        hashes = select(ScenarioRow.hash).where(ScenarioRow.domain == wanted.domain)
        conditions.append(TrajectoryRow.scenario_hash.in_(hashes))
    if wanted.low is not None or wanted.high is not None:
        reward = [RewardRow.id == _newest_reward()]
        if wanted.low is not None:
            reward.append(RewardRow.value >= wanted.low)
        if wanted.high is not None:
            reward.append(RewardRow.value <= wanted.high)
        conditions.append(exists(select(1).where(*reward).correlate(TrajectoryRow)))
    if wanted.item_id is not None or wanted.kind is not None:
        items: list[ColumnElement[bool]] = []
        if wanted.item_id is not None:
            items.append(VerdictRow.item_id == wanted.item_id)
        if wanted.kind is not None:
            items.append(VerdictRow.item_id.in_(select(ItemRow.id).where(ItemRow.kind == wanted.kind)))
        winning = winning_verdicts(*items)
        ids = select(winning.c.trajectory_id)
        if wanted.outcome is not None:
            ids = ids.where(winning.c.outcome == wanted.outcome)
        conditions.append(TrajectoryRow.id.in_(ids))
    if wanted.run_id is not None:
        trained = select(RunTrajectoryRow.trajectory_id).where(RunTrajectoryRow.run_id == wanted.run_id)
        conditions.append(TrajectoryRow.id.in_(trained))
    return conditions


def any_trajectory(log: Log, trajectory_id: str) -> bool:
    return count_trajectories(log, TrajectoryFilter(trajectory_id=trajectory_id)) > 0


def count_trajectories(log: Log, wanted: TrajectoryFilter) -> int:
    """How many trajectories the filter leaves."""
    with log.reading() as session:
        return session.scalar(select(func.count()).select_from(TrajectoryRow).where(*_conditions(wanted))) or 0


def page_of_trajectories(log: Log, wanted: TrajectoryFilter, *, limit: int, offset: int) -> list[TrajectoryListing]:
    """One page of the list, newest first."""
    with log.reading() as session:
        rows = session.execute(
            select(
                TrajectoryRow.id,
                TrajectoryRow.created_at,
                TrajectoryRow.origin,
                TrajectoryRow.batch,
                TrajectoryRow.version,
                TrajectoryRow.stop_reason,
                ScenarioRow.name,
                ScenarioRow.domain,
                ScenarioRow.seen,
                RewardRow.value,
                RewardRow.fully_passed,
                RewardRow.excluded_reason,
            )
            .select_from(TrajectoryRow)
            .outerjoin(ScenarioRow, ScenarioRow.hash == TrajectoryRow.scenario_hash)
            .outerjoin(RewardRow, RewardRow.id == _newest_reward())
            .where(*_conditions(wanted))
            .order_by(TrajectoryRow.created_at.desc(), TrajectoryRow.id.desc())
            .limit(limit)
            .offset(offset)
        ).all()
        ids = [row.id for row in rows]
        steps, openings, verdicts = _steps_of(session, ids), _openings_of(session, ids), _verdicts_of(session, ids)
    return [
        TrajectoryListing(
            id=row.id,
            created_at=as_utc(row.created_at),
            origin=row.origin,
            scenario=row.name,
            domain=row.domain,
            seen=row.seen,
            batch=row.batch,
            version=row.version,
            stop_reason=row.stop_reason or RUNNING,
            reward=row.value,
            fully_passed=row.fully_passed,
            excluded_reason=row.excluded_reason,
            verdicts=verdicts.get(row.id, Counts()),
            turns=openings.get(row.id, (0, ""))[0],
            steps=steps.get(row.id, (0, 0))[0],
            sampled_tokens=steps.get(row.id, (0, 0))[1],
            opening=openings.get(row.id, (0, ""))[1],
        )
        for row in rows
    ]


def neighbours(log: Log, wanted: TrajectoryFilter, trajectory_id: str) -> tuple[str | None, str | None]:
    """Ids of the trajectories before (newer) and after (older) this one in the filtered list."""
    with log.reading() as session:
        created_at = session.scalar(select(TrajectoryRow.created_at).where(TrajectoryRow.id == trajectory_id))
        if created_at is None:
            return None, None
        base = select(TrajectoryRow.id).where(*_conditions(wanted))
        newer = or_(
            TrajectoryRow.created_at > created_at,
            and_(TrajectoryRow.created_at == created_at, TrajectoryRow.id > trajectory_id),
        )
        older = or_(
            TrajectoryRow.created_at < created_at,
            and_(TrajectoryRow.created_at == created_at, TrajectoryRow.id < trajectory_id),
        )
        before = session.scalar(base.where(newer).order_by(TrajectoryRow.created_at, TrajectoryRow.id).limit(1))
        after = session.scalar(
            base.where(older).order_by(TrajectoryRow.created_at.desc(), TrajectoryRow.id.desc()).limit(1)
        )
    return before, after


def step_figures(log: Log, trajectory_id: str) -> dict[tuple[int, int], StepFigures]:
    """Figures of every step, by (turn index, step index); where history forked, those of the newest branch."""
    query = (
        select(
            StepRow.turn_index,
            StepRow.index.label("step_index"),
            StepRow.version,
            StepRow.context_tokens,
            StepRow.sampled_tokens,
            StepRow.latency_ms,
            StepRow.finish_reason,
            StepRow.trainable,
            StepRow.untrainable_reason,
            StepRow.forked,
        )
        .where(StepRow.trajectory_id == trajectory_id)
        .order_by(StepRow.id)
    )
    figures: dict[tuple[int, int], StepFigures] = {}
    with log.reading() as session:
        for row in session.execute(query):
            figures[row.turn_index, row.step_index] = StepFigures(
                turn_index=row.turn_index,
                index=row.step_index,
                version=row.version,
                context_tokens=row.context_tokens,
                sampled_tokens=row.sampled_tokens,
                latency_ms=row.latency_ms,
                finish_reason=row.finish_reason,
                trainable=row.trainable,
                untrainable_reason=row.untrainable_reason,
                fork=row.forked,
            )
    return figures


def sampled_arguments(log: Log, trajectory_id: str) -> dict[str, str]:
    """The arguments of every tool call as they were sampled, by call id; also where they are no JSON."""
    query = select(ToolCallRow.call_id, ToolCallRow.arguments).where(ToolCallRow.trajectory_id == trajectory_id)
    with log.reading() as session:
        return {row[0]: row[1] for row in session.execute(query)}


def _steps_of(session: Session, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    query = (
        select(StepRow.trajectory_id, func.count(), func.sum(StepRow.sampled_tokens))
        .where(StepRow.trajectory_id.in_(ids))
        .group_by(StepRow.trajectory_id)
    )
    return {row[0]: (row[1], int(row[2] or 0)) for row in session.execute(query)}


def _openings_of(session: Session, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    query = select(TurnRow.trajectory_id, TurnRow.index, TurnRow.user).where(TurnRow.trajectory_id.in_(ids))
    found: dict[str, tuple[int, str]] = {}
    for trajectory_id, index, user in session.execute(query):
        turns, opening = found.get(trajectory_id, (0, ""))
        found[trajectory_id] = (turns + 1, user if index == 0 else opening)
    return found


def _verdicts_of(session: Session, ids: Sequence[str]) -> dict[str, Counts]:
    winning = winning_verdicts(VerdictRow.trajectory_id.in_(ids))
    query = select(winning.c.trajectory_id, *outcome_sums(winning.c.outcome)).group_by(winning.c.trajectory_id)
    return {row[0]: Counts(*map(int, row[1:])) for row in session.execute(query)}
