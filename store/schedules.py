"""Schedules: stored, changed, fired once for each due time. Reads and writes schedule and firing rows.

What a trigger means is decided in train/triggers.py; here it is a document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, String, cast, delete, distinct, exists, func, insert, literal, or_, select, update

from store.database import AnyRow, Log, LogError, insert_new
from store.jobs import UNFINISHED, NewJob, insert_pipeline
from store.schema import FiringRow, JobRow, ScheduleRow, TrajectoryRow, VerdictRow, now
from store.vocabulary import FiringOutcome, JobKind, JobStatus, MissedRuns, Origin, Outcome, Overlap

JOB_DUE = "job "
"""Before the id of a job, what a schedule that follows jobs was due for."""

MAX_WAITING = 16
"""Pipelines of one schedule that may wait for each other."""


@dataclass(frozen=True)
class ScheduleRecord:
    id: int
    name: str
    trigger: dict[str, Any]
    jobs: tuple[NewJob, ...]
    zone: str
    missed: MissedRuns
    overlap: Overlap
    paused: bool
    armed_at: datetime
    mark: int
    last_fired: datetime | None
    next_due: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class Firing:
    id: int
    due: str
    outcome: FiringOutcome
    reason: str
    pipeline: str | None
    created_at: datetime


def add_schedule(
    log: Log,
    name: str,
    *,
    trigger: dict[str, Any],
    jobs: Sequence[NewJob],
    zone: str = "UTC",
    missed: MissedRuns = MissedRuns.ONCE,
    overlap: Overlap = Overlap.SKIP,
    next_due: datetime | None = None,
) -> ScheduleRecord:
    """Raises LogError if there is a schedule of that name."""
    values = {
        "name": name,
        "trigger": trigger,
        "jobs": [job.document() for job in jobs],
        "zone": zone,
        "missed": missed.value,
        "overlap": overlap.value,
        "paused": False,
        "next_due": next_due,
        "armed_at": now(),
    }
    table = ScheduleRow.__table__
    with log.writing() as connection:
        taken = connection.execute(select(table.c.id).where(table.c.name == name)).first() is not None
        if not taken:
            connection.execute(insert(table), values | {"mark": _newest_verdict(connection)})
    if taken:
        raise LogError(f"there is a schedule {name!r} already: `checkloop schedule edit {name}` changes it")
    return get_schedule(log, name)


def get_schedule(log: Log, name: str) -> ScheduleRecord:
    """Raises LogError if there is none."""
    found = next((schedule for schedule in list_schedules(log) if schedule.name == name), None)
    if found is None:
        raise LogError(f"there is no schedule {name!r}: `checkloop schedule list` shows those there are")
    return found


def list_schedules(log: Log) -> list[ScheduleRecord]:
    """By name."""
    with log.lookup() as connection:
        return [_record(row) for row in connection.execute(select(ScheduleRow.__table__).order_by(ScheduleRow.name))]


def change_schedule(log: Log, name: str, *, rearm: bool = False, **changes: Any) -> ScheduleRecord:
    """Sets columns (`jobs` as NewJobs, enums as such). With `rearm` what happened until now does not fire it.

    Raises LogError if there is no such schedule.
    """
    if "jobs" in changes:
        changes["jobs"] = [job.document() for job in changes["jobs"]]
    table = ScheduleRow.__table__
    with log.writing() as connection:
        if rearm:
            changes |= {"armed_at": now(), "mark": _newest_verdict(connection)}
        connection.execute(update(table).where(table.c.name == name).values(**changes))
    return get_schedule(log, name)


def remove_schedule(log: Log, name: str) -> int:
    """Removes it and its firings; its jobs stay. Returns how many of them are unfinished. LogError if there is none."""
    schedule = get_schedule(log, name)
    of_it = JobRow.__table__.c.schedule_id == schedule.id
    with log.writing() as connection:
        left = connection.scalar(select(func.count()).where(of_it, JobRow.status.in_(UNFINISHED))) or 0
        connection.execute(update(JobRow.__table__).where(of_it).values(schedule_id=None))
        connection.execute(delete(FiringRow.__table__).where(FiringRow.schedule_id == schedule.id))
        connection.execute(delete(ScheduleRow.__table__).where(ScheduleRow.id == schedule.id))
    return left


def fire_schedule(
    log: Log,
    schedule: ScheduleRecord,
    due: str,
    *,
    at: datetime,
    next_due: datetime | None = None,
    missed: str = "",
    by_hand: bool = False,
    waits: bool = False,
) -> Firing | None:
    """Queues the schedule's pipeline for `due`, or records why it is left out (`missed`, or the overlap policy).

    None if another worker fired this due time before, or if the schedule was paused or removed meanwhile. A person's
    firing is queued whatever the policies and the pause say. With `waits` the overlap policy leaves nothing out: None,
    and it can be fired for the same `due` later.
    """
    table = ScheduleRow.__table__
    with log.writing() as connection:
        row = connection.execute(select(table).where(table.c.id == schedule.id).with_for_update()).first()
        if row is None or (row.paused and not by_hand):
            return None
        outcome, reason = FiringOutcome.QUEUED, "by hand" if by_hand else ""
        if missed:
            outcome, reason = FiringOutcome.MISSED, missed
        elif not by_hand and (in_the_way := _overlap(connection, row)):
            if waits:
                return None
            outcome, reason = FiringOutcome.OVERLAP, in_the_way
        values = {"schedule_id": row.id, "due": due, "outcome": outcome.value, "reason": reason, "created_at": at}
        firing_id = connection.scalar(insert_new(log, FiringRow.__table__).values(**values).returning(FiringRow.id))
        if firing_id is None:
            return None
        pipeline = None
        changes: dict[str, Any] = {} if next_due is None else {"next_due": next_due}
        if outcome is FiringOutcome.QUEUED:
            pipeline = f"{row.name}-{at:%Y%m%dT%H%M%SZ}-{firing_id}"  # `judged_turns_since` knows the form
            jobs = [_new_job(document) for document in row.jobs]
            insert_pipeline(connection, jobs, pipeline=pipeline, schedule_id=row.id, run_after=at)
            connection.execute(update(FiringRow.__table__).where(FiringRow.id == firing_id).values(pipeline=pipeline))
            changes |= {"mark": _newest_verdict(connection), "last_fired": at}
        if changes:
            connection.execute(update(table).where(table.c.id == row.id).values(**changes))
    return Firing(firing_id, due, outcome, reason, pipeline, at)


def list_firings(log: Log, name: str, limit: int = 10) -> list[Firing]:
    """Newest first."""
    schedule = get_schedule(log, name)
    columns = [column for column in FiringRow.__table__.c if column.name != "schedule_id"]
    query = select(*columns).where(FiringRow.schedule_id == schedule.id).order_by(FiringRow.id.desc()).limit(limit)
    with log.lookup() as connection:
        return [
            Firing(**row._asdict() | {"outcome": FiringOutcome(row.outcome)}) for row in connection.execute(query).all()
        ]


def has_room(log: Log, schedule: ScheduleRecord) -> bool:
    """Whether its overlap policy lets another pipeline be queued now."""
    with log.lookup() as connection:
        return not _overlap(connection, schedule)


def judged_turns_since(log: Log, schedule: ScheduleRecord, enough: int) -> int:
    """Turns with a verdict that counts, a judge's or a person's, other than UNSCORED since it last fired, at most
    `enough`.

    Single votes of a panel and judges that speak beside the one that counts change no reward. Evaluations do not count,
    nor does what the schedule's own jobs played or judged: it would keep itself going.
    """
    own = TrajectoryRow.batch.like(f"{schedule.name}-________T______Z-%")
    judged_by_itself = exists().where(
        JobRow.schedule_id == schedule.id,
        JobRow.kind == JobKind.JUDGE.value,
        JobRow.started_at <= VerdictRow.created_at,
        or_(JobRow.ended_at.is_(None), JobRow.ended_at >= VerdictRow.created_at),
    )
    turns = (
        select(VerdictRow.trajectory_id, VerdictRow.turn_index)
        .distinct()
        .join(TrajectoryRow, TrajectoryRow.id == VerdictRow.trajectory_id)
        .where(
            VerdictRow.id > schedule.mark,
            VerdictRow.counts,
            VerdictRow.outcome != Outcome.UNSCORED.value,
            TrajectoryRow.origin != Origin.EVALUATION.value,
            or_(TrajectoryRow.batch.is_(None), ~own),
            ~judged_by_itself,
        )
        .limit(enough)
    )
    with log.lookup() as connection:
        return connection.scalar(select(func.count()).select_from(turns.subquery())) or 0


def done_since(log: Log, schedule: ScheduleRecord, kind: JobKind) -> list[int]:
    """Jobs of a kind that got done since the schedule was armed and have not fired it; its own are left out."""
    due = literal(JOB_DUE) + cast(JobRow.id, String)
    query = select(JobRow.id).where(
        JobRow.kind == kind.value,
        JobRow.status == JobStatus.DONE.value,
        JobRow.ended_at > schedule.armed_at,
        or_(JobRow.schedule_id.is_(None), JobRow.schedule_id != schedule.id),
        ~exists().where(FiringRow.schedule_id == schedule.id, FiringRow.due == due),
    )
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(JobRow.ended_at, JobRow.id)))


def _overlap(connection: Connection, row: AnyRow | ScheduleRecord) -> str:
    waiting = _waiting(connection, row.id)
    if waiting and row.overlap == Overlap.SKIP:
        return "its last pipeline is unfinished"
    return f"{waiting} of its pipelines are waiting already" if waiting >= MAX_WAITING else ""


def _waiting(connection: Connection, schedule_id: int) -> int:
    query = select(func.count(distinct(JobRow.pipeline)))
    return connection.scalar(query.where(JobRow.schedule_id == schedule_id, JobRow.status.in_(UNFINISHED))) or 0


def _newest_verdict(connection: Connection) -> int:
    return connection.scalar(select(func.max(VerdictRow.id))) or 0


def _record(row: AnyRow) -> ScheduleRecord:
    return ScheduleRecord(
        **row._asdict()
        | {
            "jobs": tuple(_new_job(document) for document in row.jobs),
            "missed": MissedRuns(row.missed),
            "overlap": Overlap(row.overlap),
        }
    )


def _new_job(document: dict[str, Any]) -> NewJob:
    return NewJob(**document | {"kind": JobKind(document["kind"])})
