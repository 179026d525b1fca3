"""Jobs as people see them: queued as pipelines, listed, cancelled, tried again. Reads and writes job rows.

What a worker does with a job (take it, renew the lease, end it) is in store/leases.py.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from store.database import AnyRow, Log, LogError
from store.schema import JobRow, ScheduleRow, now
from store.vocabulary import ExitReason, JobKind, JobStatus

MAX_ATTEMPTS = 3
UNFINISHED = (JobStatus.QUEUED.value, JobStatus.RUNNING.value)


@dataclass(frozen=True)
class NewJob:
    kind: JobKind
    payload: dict[str, Any]
    priority: int = 0
    """Higher goes first."""
    max_attempts: int = MAX_ATTEMPTS

    def document(self) -> dict[str, Any]:
        """As a schedule stores it."""
        return {
            "kind": self.kind.value,
            "payload": self.payload,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
        }


@dataclass(frozen=True)
class JobRecord:
    id: int
    kind: JobKind
    payload: dict[str, Any]
    status: JobStatus
    priority: int
    run_after: datetime
    pipeline: str
    position: int
    schedule_id: int | None
    attempts: int
    max_attempts: int
    claims: int
    lease_owner: str | None
    lease_until: datetime | None
    host: str | None
    accelerator: str | None
    holds: str | None
    cancel_requested: bool
    notes: dict[str, Any] | None
    result: dict[str, Any] | None
    error: str | None
    exit_reason: ExitReason | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """What its batches and runs are called; the same whoever runs it, however often."""
        return f"{self.pipeline}/{self.position}"


def submit_pipeline(log: Log, jobs: Sequence[NewJob], *, run_after: datetime | None = None) -> list[int]:
    """Queues the jobs as one pipeline under a new name; their ids in order. Raises LogError for an empty one."""
    with log.writing() as connection:
        return insert_pipeline(connection, jobs, pipeline=f"by-hand-{uuid.uuid4().hex[:8]}", run_after=run_after)


def insert_pipeline(
    connection: Connection,
    jobs: Sequence[NewJob],
    *,
    pipeline: str,
    schedule_id: int | None = None,
    run_after: datetime | None = None,
) -> list[int]:
    """The same in the caller's transaction, under a name of the caller's."""
    if not jobs:
        raise LogError("a pipeline needs at least one job")
    ids = []
    for position, job in enumerate(jobs):
        values = {
            "kind": job.kind.value,
            "payload": job.payload,
            "status": JobStatus.QUEUED.value,
            "priority": job.priority,
            "max_attempts": job.max_attempts,
            "run_after": run_after or now(),
            "pipeline": pipeline,
            "position": position,
            "schedule_id": schedule_id,
        }
        ids.append(int(connection.execute(insert(JobRow.__table__).values(**values).returning(JobRow.id)).scalar_one()))
    return ids


def get_job(log: Log, job_id: int) -> JobRecord:
    """Raises LogError if there is none."""
    with log.lookup() as connection:
        row = connection.execute(select(JobRow.__table__).where(JobRow.id == job_id)).first()
    if row is None:
        raise LogError(f"there is no job {job_id} in the log: `checkloop job list` shows those there are")
    return job_record(row)


def list_jobs(
    log: Log,
    *,
    status: JobStatus | None = None,
    kind: JobKind | None = None,
    pipeline: str | None = None,
    schedule: str | None = None,
    limit: int | None = 50,
    offset: int = 0,
) -> list[JobRecord]:
    """Those that meet every condition given, newest first; `offset` of them are passed over."""
    query = _those(select(JobRow.__table__), status, kind, pipeline, schedule)
    with log.lookup() as connection:
        rows = connection.execute(query.order_by(JobRow.id.desc()).limit(limit).offset(offset))
        return [job_record(row) for row in rows]


def count_jobs(
    log: Log, *, status: JobStatus | None = None, kind: JobKind | None = None, schedule: str | None = None
) -> int:
    """How many `list_jobs` would find."""
    with log.lookup() as connection:
        found = connection.scalar(_those(select(func.count()).select_from(JobRow), status, kind, None, schedule))
    return found or 0


def _those(
    query: Select[Any], status: JobStatus | None, kind: JobKind | None, pipeline: str | None, schedule: str | None
) -> Select[Any]:
    if status is not None:
        query = query.where(JobRow.status == status.value)
    if kind is not None:
        query = query.where(JobRow.kind == kind.value)
    if pipeline is not None:
        query = query.where(JobRow.pipeline == pipeline)
    if schedule is not None:
        named = select(ScheduleRow.id).where(ScheduleRow.name == schedule)
        query = query.where(JobRow.schedule_id == named.scalar_subquery())
    return query


def earlier_jobs(log: Log, job: JobRecord) -> list[JobRecord]:
    """Those before it in its pipeline, in order."""
    return [one for one in reversed(list_jobs(log, pipeline=job.pipeline, limit=None)) if one.position < job.position]


def cancel_job(log: Log, job_id: int) -> JobRecord:
    """Cancels a queued job, and those after it in its pipeline, at once; asks a running one to stop.

    Raises LogError if it has ended.
    """
    table = JobRow.__table__
    with log.writing() as connection:
        row = connection.execute(select(table).where(table.c.id == job_id).with_for_update()).first()
        if row is not None and row.status == JobStatus.QUEUED:
            values = {
                "status": JobStatus.CANCELLED.value,
                "exit_reason": ExitReason.CANCELLED.value,
                "ended_at": now(),
            }
            connection.execute(update(table).where(table.c.id == job_id).values(**values))
            cancel_followers(connection, row.id, row.pipeline, row.position)
        elif row is not None and row.status == JobStatus.RUNNING:
            connection.execute(update(table).where(table.c.id == job_id).values(cancel_requested=True))
    job = get_job(log, job_id)
    if row is not None and row.status not in UNFINISHED:
        raise LogError(f"job {job_id} is {job.status} already: only what is queued or runs can be cancelled")
    return job


def retry_job(log: Log, job_id: int) -> JobRecord:
    """Queues a failed or cancelled job again, with all its attempts, and what was cancelled because of it.

    Raises LogError if it is neither, or if a job before it in its pipeline is not done.
    """
    job = get_job(log, job_id)
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise LogError(f"job {job_id} is {job.status}: only a failed or cancelled one can be tried again")
    waiting = [one for one in earlier_jobs(log, job) if one.status is not JobStatus.DONE]
    if waiting:
        raise LogError(
            f"job {job_id} comes after job {waiting[0].id}, which is {waiting[0].status}: try that one again"
        )
    table = JobRow.__table__
    fresh = {
        "status": JobStatus.QUEUED.value,
        "attempts": 0,
        "cancel_requested": False,
        "run_after": now(),
        "error": None,
        "exit_reason": None,
        "ended_at": None,
    }
    with log.writing() as connection:
        ended = table.c.status.in_([JobStatus.FAILED.value, JobStatus.CANCELLED.value])
        connection.execute(update(table).where(table.c.id == job_id, ended).values(**fresh))
        followers = (table.c.pipeline == job.pipeline) & (table.c.position > job.position)
        because_of_it = table.c.exit_reason == ExitReason.EARLIER.value
        connection.execute(update(table).where(followers, because_of_it).values(**fresh))
    return get_job(log, job_id)


def cancel_followers(connection: Connection, job_id: int, pipeline: str, position: int) -> None:
    """What comes after a job that did not get done is not started."""
    table = JobRow.__table__
    connection.execute(
        update(table)
        .where(table.c.pipeline == pipeline, table.c.position > position, table.c.status == JobStatus.QUEUED.value)
        .values(
            status=JobStatus.CANCELLED.value,
            exit_reason=ExitReason.EARLIER.value,
            error=f"job {job_id} before it did not get done",
            ended_at=now(),
        )
    )


def job_record(row: AnyRow) -> JobRecord:
    values = row._asdict()
    reason = values["exit_reason"]
    enums = {
        "kind": JobKind(row.kind),
        "status": JobStatus(row.status),
        "exit_reason": ExitReason(reason) if reason else None,
    }
    return JobRecord(**values | enums)
