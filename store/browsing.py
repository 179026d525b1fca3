"""Finding trajectories: filtered pages of the list, the neighbours of one, and what each step of one cost.

Reads the log, writes nothing. Everything is filtered and paged in SQL; a page costs six queries, whatever the
log's size (which and in what order: store.trajectory_filters).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.database import Log
from store.figures import Counts, as_utc
from store.schema import RewardRow, ScenarioRow, StepRow, ToolCallRow, TrajectoryRow, TurnRow, VerdictRow
from store.standing import newest_reward, outcome_sums, winning_verdicts
from store.trajectory_filters import (
    REVERSED,
    RUNNING,
    TrajectoryFilter,
    TrajectoryOrder,
    beyond,
    conditions_of,
    in_order,
)


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


def any_trajectory(log: Log, trajectory_id: str) -> bool:
    return count_trajectories(log, TrajectoryFilter(trajectory_id=trajectory_id)) > 0


def count_trajectories(log: Log, wanted: TrajectoryFilter, order: TrajectoryOrder = TrajectoryOrder.NEWEST) -> int:
    """How many trajectories the filter leaves; in an order by reward, of those that have one."""
    listed = select(func.count()).select_from(TrajectoryRow).where(*conditions_of(wanted))
    if order.by_reward:
        listed = listed.join(RewardRow, RewardRow.id == newest_reward()).where(RewardRow.value.is_not(None))
    with log.reading() as session:
        return session.scalar(listed) or 0


def page_of_trajectories(
    log: Log, wanted: TrajectoryFilter, *, limit: int, offset: int, order: TrajectoryOrder = TrajectoryOrder.NEWEST
) -> list[TrajectoryListing]:
    """One page of the list. What is shown of a line is looked up for the lines of the page alone."""
    listed = in_order(select(TrajectoryRow.id).where(*conditions_of(wanted)), order).limit(limit).offset(offset)
    with log.reading() as session:
        ids = list(session.scalars(listed))
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
            .outerjoin(RewardRow, RewardRow.id == newest_reward())
            .where(TrajectoryRow.id.in_(ids))
        ).all()
        rows = sorted(rows, key=lambda row: ids.index(row.id))
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


def neighbours(
    log: Log, wanted: TrajectoryFilter, trajectory_id: str, order: TrajectoryOrder = TrajectoryOrder.NEWEST
) -> tuple[str | None, str | None]:
    """Ids of the trajectories before and after this one in the filtered list; None at its ends."""
    began = select(TrajectoryRow.created_at).where(TrajectoryRow.id == trajectory_id)
    earned = select(RewardRow.value).where(RewardRow.trajectory_id == trajectory_id).order_by(RewardRow.id.desc())
    base = select(TrajectoryRow.id).where(*conditions_of(wanted))
    with log.reading() as session:
        key = session.scalar(earned.limit(1)) if order.by_reward else session.scalar(began)
        if key is None:
            return None, None
        before, after = (
            session.scalar(in_order(base, way).where(beyond(way, key, trajectory_id)).limit(1))
            for way in (REVERSED[order], order)
        )
    return before, after


def step_figures(
    log: Log, trajectory_id: str, steps: Collection[int] | None = None
) -> dict[tuple[int, int], StepFigures]:
    """Figures of every step, by (turn index, step index); where history forked, those of the steps with these ids, else
    the newest one at each place."""
    query = (
        select(
            StepRow.id,
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
            if steps is not None and row.id not in steps:
                continue
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
