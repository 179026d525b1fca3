"""Trajectories: announced, ended, found again. Writes the trajectory and rollout_group tables.

What happens inside one is recorded by store/steps.py and read by store/turns.py; both are offered here too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, insert, select, update

from store.changes import Change, note_change
from store.database import AnyRow, Log, LogError, in_chunks, insert_new
from store.schema import Base, GroupRow, ScenarioRow, TrajectoryRow, now
from store.steps import StepToRecord, ToolAnswer, record_step, record_tool_answers
from store.tallies import kept_tallies
from store.turns import get_turns, turns_of
from store.vocabulary import Origin, StopReason

__all__ = [
    "NewTrajectory",
    "StepToRecord",
    "ToolAnswer",
    "TrajectorySummary",
    "create_group",
    "create_trajectories",
    "delete_trajectories",
    "end_trajectory",
    "ensure_trajectory",
    "get_trajectories",
    "get_trajectory",
    "get_turns",
    "judgeable_trajectories",
    "link_scenario",
    "list_trajectories",
    "record_step",
    "record_tool_answers",
    "turns_of",
]


@dataclass(frozen=True)
class NewTrajectory:
    id: str
    origin: Origin | str
    scenario_hash: str | None = None
    group_id: int | None = None
    batch: str | None = None
    member: int = 0
    version: str | None = None
    seed: int | None = None
    sampling: dict[str, Any] | None = None
    title: str | None = None
    chat: dict[str, Any] | None = None
    """What a chat of ours runs with (`store.chats.ChatSetup.as_dict()`)."""


@dataclass(frozen=True)
class TrajectorySummary:
    id: str
    origin: Origin
    scenario_hash: str | None
    scenario_name: str | None
    domain: str | None
    seen: bool | None
    group_id: int | None
    batch: str | None
    member: int
    version: str | None
    seed: int | None
    stop_reason: StopReason | None
    """None while it is running."""
    error: str | None
    title: str | None
    chat: dict[str, Any] | None
    created_at: datetime
    ended_at: datetime | None


def create_group(log: Log, scenario_hash: str, batch: str, version: str, seed: int) -> int:
    """A group for one GRPO baseline; returns its id."""
    values = {"scenario_hash": scenario_hash, "batch": batch, "version": version, "seed": seed}
    with log.writing() as connection:
        return connection.execute(insert(GroupRow.__table__).values(**values).returning(GroupRow.id)).scalar_one()


def create_trajectories(log: Log, trajectories: Iterable[NewTrajectory]) -> None:
    """All of them or, on LogError (an id that is taken, an unknown scenario or group), none."""
    rows = [asdict(trajectory) | {"origin": Origin(trajectory.origin).value} for trajectory in trajectories]
    if not rows:
        return
    with log.writing() as connection:
        connection.execute(insert(TrajectoryRow.__table__), rows)


def ensure_trajectory(log: Log, trajectory_id: str, origin: Origin | str, version: str | None) -> None:
    """Creates the trajectory of a session that nobody announced; leaves an existing one as it is."""
    with log.writing() as connection:
        connection.execute(
            insert_new(log, TrajectoryRow.__table__),
            {"id": trajectory_id, "origin": Origin(origin).value, "version": version},
        )


def end_trajectory(log: Log, trajectory_id: str, stop_reason: StopReason | str, error: str | None = None) -> None:
    """Ends it once; saying the same again changes nothing. LogError if it is unknown or ended for another reason."""
    reason = StopReason(stop_reason).value
    row = TrajectoryRow.__table__
    with log.writing() as connection:
        ended = connection.execute(
            update(row)
            .where(row.c.id == trajectory_id, row.c.stop_reason.is_(None))
            .values(stop_reason=reason, error=error, ended_at=now())
        )
        if ended.rowcount:
            note_change(connection, Change.ENDED)
            return
        before = connection.execute(select(row.c.stop_reason).where(row.c.id == trajectory_id)).first()
    if before is None:
        raise LogError(f"there is no trajectory {trajectory_id!r} in the log")
    if before.stop_reason != reason:
        raise LogError(f"trajectory {trajectory_id!r} already ended with {before.stop_reason!r}, not {reason!r}")


def link_scenario(log: Log, trajectory_id: str, scenario_hash: str) -> None:
    """Says, once, from which scenario a trajectory without one comes; saying the same again changes nothing.

    Raises LogError for an unknown trajectory or scenario, and for a trajectory that has another scenario.
    """
    row = TrajectoryRow.__table__
    with log.writing() as connection:
        linked = connection.execute(
            update(row)
            .where(row.c.id == trajectory_id, row.c.scenario_hash.is_(None))
            .values(scenario_hash=scenario_hash)
        )
        if linked.rowcount:
            note_change(connection, Change.LINKED)
            return
        before = connection.execute(select(row.c.scenario_hash).where(row.c.id == trajectory_id)).first()
    if before is None:
        raise LogError(f"there is no trajectory {trajectory_id!r} in the log")
    if before.scenario_hash != scenario_hash:
        raise LogError(
            f"trajectory {trajectory_id!r} comes from scenario {before.scenario_hash!r}: it cannot come from "
            f"{scenario_hash!r} too"
        )


def get_trajectory(log: Log, trajectory_id: str) -> TrajectorySummary:
    """Raises LogError if there is none."""
    with log.lookup() as connection:
        row = connection.execute(_SUMMARIES.where(TrajectoryRow.id == trajectory_id)).first()
    if row is None:
        raise LogError(f"there is no trajectory {trajectory_id!r} in the log")
    return _summary(row)


def get_trajectories(log: Log, trajectory_ids: Iterable[str]) -> list[TrajectorySummary]:
    """In the order given, each once. Raises LogError that names one that is not in the log."""
    wanted = list(dict.fromkeys(trajectory_ids))
    found: dict[str, TrajectorySummary] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(wanted):
            for row in connection.execute(_SUMMARIES.where(TrajectoryRow.id.in_(chunk))):
                found[row.id] = _summary(row)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise LogError(f"there is no trajectory {missing[0]!r} in the log")
    return [found[name] for name in wanted]


def list_trajectories(
    log: Log,
    *,
    batch: str | None = None,
    origin: Origin | str | None = None,
    version: str | None = None,
    domain: str | None = None,
    groups: Sequence[int] | None = None,
    limit: int | None = 100,
    offset: int = 0,
) -> list[TrajectorySummary]:
    """Those that meet every condition given, newest first; `limit=None` for all. `groups`: their ids."""
    query = _SUMMARIES
    if batch is not None:
        query = query.where(TrajectoryRow.batch == batch)
    if origin is not None:
        query = query.where(TrajectoryRow.origin == Origin(origin).value)
    if version is not None:
        query = query.where(TrajectoryRow.version == version)
    if domain is not None:
        query = query.where(ScenarioRow.domain == domain)
    if groups is not None:
        query = query.where(TrajectoryRow.group_id.in_(list(groups)))
    query = query.order_by(TrajectoryRow.created_at.desc(), TrajectoryRow.id.desc()).limit(limit).offset(offset)
    with log.lookup() as connection:
        return [_summary(row) for row in connection.execute(query)]


def judgeable_trajectories(
    log: Log,
    *,
    batch: str | None = None,
    origin: Origin | str | None = None,
    version: str | None = None,
    domain: str | None = None,
) -> list[str]:
    """Ids of those that have a scenario, ended (a chat need not) and did not fail, and meet every condition given.

    Newest first.
    """
    ended = TrajectoryRow.stop_reason != StopReason.FAILED.value
    open_chat = TrajectoryRow.stop_reason.is_(None) & (TrajectoryRow.origin == Origin.CHAT.value)
    query = select(TrajectoryRow.id).where(TrajectoryRow.scenario_hash.is_not(None), ended | open_chat)
    if batch is not None:
        query = query.where(TrajectoryRow.batch == batch)
    if origin is not None:
        query = query.where(TrajectoryRow.origin == Origin(origin).value)
    if version is not None:
        query = query.where(TrajectoryRow.version == version)
    if domain is not None:
        of_domain = select(ScenarioRow.hash).where(ScenarioRow.domain == domain)
        query = query.where(TrajectoryRow.scenario_hash.in_(of_domain))
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(TrajectoryRow.created_at.desc(), TrajectoryRow.id.desc())))


def delete_trajectories(log: Log, trajectory_ids: Iterable[str]) -> int:
    """Removes the unfinished ones among them, with all that hangs on them; returns how many.

    For a stage that was killed half-way and is played again: what has ended is part of the log and stays.
    """
    deleted = 0
    with log.writing() as connection:
        for chunk in in_chunks(list(dict.fromkeys(trajectory_ids))):
            open_ones = select(TrajectoryRow.id, TrajectoryRow.group_id).where(
                TrajectoryRow.id.in_(chunk), TrajectoryRow.stop_reason.is_(None)
            )
            rows = connection.execute(open_ones).all()
            ids = [row.id for row in rows]
            delete_with_all_that_hangs_on(connection, ids)
            groups = {row.group_id for row in rows if row.group_id is not None}
            has_members = exists().where(TrajectoryRow.group_id == GroupRow.id)
            connection.execute(delete(GroupRow.__table__).where(GroupRow.id.in_(groups), ~has_members))
            deleted += len(ids)
        if deleted:
            note_change(connection, Change.DELETED)
    return deleted


def delete_with_all_that_hangs_on(connection: Connection, trajectory_ids: Sequence[str]) -> None:
    """Removes trajectories and every row that names them, in the caller's transaction, which notes the change last."""
    with kept_tallies(connection, trajectory_ids):
        for table in reversed(Base.metadata.sorted_tables):
            if "trajectory_id" in table.c:
                connection.execute(delete(table).where(table.c.trajectory_id.in_(trajectory_ids)))
        connection.execute(delete(TrajectoryRow.__table__).where(TrajectoryRow.id.in_(trajectory_ids)))


_SUMMARIES = select(
    TrajectoryRow.id,
    TrajectoryRow.origin,
    TrajectoryRow.scenario_hash,
    ScenarioRow.name.label("scenario_name"),
    ScenarioRow.domain,
    ScenarioRow.seen,
    TrajectoryRow.group_id,
    TrajectoryRow.batch,
    TrajectoryRow.member,
    TrajectoryRow.version,
    TrajectoryRow.seed,
    TrajectoryRow.stop_reason,
    TrajectoryRow.error,
    TrajectoryRow.title,
    TrajectoryRow.chat,
    TrajectoryRow.created_at,
    TrajectoryRow.ended_at,
).outerjoin(ScenarioRow, TrajectoryRow.scenario_hash == ScenarioRow.hash)


def _summary(row: AnyRow) -> TrajectorySummary:
    values = row._asdict()
    stop_reason = values.pop("stop_reason")
    origin = Origin(values.pop("origin"))
    return TrajectorySummary(**values, origin=origin, stop_reason=StopReason(stop_reason) if stop_reason else None)
