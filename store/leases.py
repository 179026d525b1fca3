"""Jobs as workers see them: taken under a lease, renewed, ended, put back. Writes job rows.

Each time a job is taken its `claims` counts up. Whoever holds an older number (a worker that was suspended until its
lease ran out) can neither renew nor end it: every statement here names the number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, case, exists, null, select, update
from sqlalchemy.exc import IntegrityError

from store.database import Log, LogError
from store.jobs import UNFINISHED, JobRecord, cancel_followers, job_record
from store.schema import JobRow, now
from store.vocabulary import ExitReason, JobKind, JobStatus

_JOB = JobRow.__table__


@dataclass(frozen=True)
class Hold:
    """What a worker offers for a kind of job."""

    accelerator: str | None = None
    exclusive: str | None = None
    """What only one running job has at a time."""


class Lease(Enum):
    KEPT = "kept"
    CANCEL = "cancel"
    """Kept, and somebody asked for the job to stop."""
    LOST = "lost"


def claim_job(
    log: Log, *, owner: str, host: str, offers: Mapping[JobKind, Hold], lease_s: float, at: datetime
) -> JobRecord | None:
    """The ready job of the highest priority, taken for `owner` until `at` + `lease_s`; None if nothing is ready."""
    ready = (_JOB.c.status == JobStatus.QUEUED.value) & (_JOB.c.run_after <= at)
    if not offers or not _is_any(log, ready):
        return None
    exclusive = _by_kind({kind: hold.exclusive for kind, hold in offers.items()})
    values = {
        "status": JobStatus.RUNNING.value,
        "lease_owner": owner,
        "lease_until": at + timedelta(seconds=lease_s),
        "host": host,
        "accelerator": _by_kind({kind: hold.accelerator for kind, hold in offers.items()}),
        "holds": exclusive,
        "attempts": _JOB.c.attempts + 1,
        "claims": _JOB.c.claims + 1,
        "started_at": at,
        "ended_at": None,
        "error": None,
        "exit_reason": None,
    }
    chosen = (
        select(_JOB.c.id)
        .where(
            _JOB.c.status == JobStatus.QUEUED.value,
            _JOB.c.run_after <= at,
            _JOB.c.kind.in_([kind.value for kind in offers]),
            *_nothing_in_the_way(exclusive),
        )
        .order_by(_JOB.c.priority.desc(), _JOB.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    try:
        with log.writing() as connection:
            row = connection.execute(
                update(_JOB)
                .where(_JOB.c.id == chosen, _JOB.c.status == JobStatus.QUEUED.value)
                .values(**values)
                .returning(*_JOB.c)
            ).first()
    except LogError as error:
        if isinstance(error.__cause__, IntegrityError):
            return None  # another worker took, in the same moment, what this job would hold
        raise
    return None if row is None else job_record(row)


def take_back_lost(log: Log, at: datetime) -> int:
    """Queues again what runs under a lease that ran out before `at`; it fails if it has had all its attempts, and is
    cancelled if somebody asked for that. Returns how many there were."""
    lost = (_JOB.c.status == JobStatus.RUNNING.value) & (_JOB.c.lease_until < at)
    if not _is_any(log, lost):
        return 0
    queued, failed, cancelled = (s.value for s in (JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED))
    end = case((_JOB.c.cancel_requested, cancelled), (_JOB.c.attempts >= _JOB.c.max_attempts, failed), else_=queued)
    values = {
        "status": end,
        "exit_reason": ExitReason.LOST.value,
        "error": "worker " + _JOB.c.lease_owner + " was not heard of until its lease ran out",
        "ended_at": at,
    }
    with log.writing() as connection:
        rows = connection.execute(
            update(_JOB)
            .where(lost)
            .values(**values)
            .returning(_JOB.c.id, _JOB.c.pipeline, _JOB.c.position, _JOB.c.status)
        ).all()
        for row in rows:
            if row.status != queued:
                cancel_followers(connection, row.id, row.pipeline, row.position)
    return len(rows)


def renew_lease(log: Log, job: JobRecord, until: datetime) -> Lease:
    with log.writing() as connection:
        row = connection.execute(
            update(_JOB).where(*_held(job)).values(lease_until=until).returning(_JOB.c.cancel_requested)
        ).first()
    return _lease(row.cancel_requested if row is not None else None)


def look_at_lease(log: Log, job: JobRecord) -> Lease:
    """As `renew_lease`, without writing."""
    with log.lookup() as connection:
        row = connection.execute(select(_JOB.c.cancel_requested).where(*_held(job))).first()
    return _lease(row.cancel_requested if row is not None else None)


def note_on_job(log: Log, job: JobRecord, notes: dict[str, Any]) -> None:
    """What the job chose when it first started. Raises LogError if it is held by somebody else by now."""
    with log.writing() as connection:
        noted = connection.execute(update(_JOB).where(*_held(job)).values(notes=notes))
    if not noted.rowcount:
        raise LogError(f"job {job.id} was taken over: this try of it ends here")


def end_job(
    log: Log, job: JobRecord, reason: ExitReason, *, result: dict[str, Any] | None = None, error: str | None = None
) -> bool:
    """Ends it as done, cancelled or (any other reason) failed, and its pipeline unless it is done.

    False, with nothing written, if the job is held by somebody else by now.
    """
    ends = {ExitReason.DONE: JobStatus.DONE, ExitReason.CANCELLED: JobStatus.CANCELLED}
    status = ends.get(reason, JobStatus.FAILED)
    values = {"status": status.value, "exit_reason": reason.value, "result": result, "error": error, "ended_at": now()}
    with log.writing() as connection:
        ended = connection.execute(update(_JOB).where(*_held(job)).values(**values))
        if ended.rowcount and status is not JobStatus.DONE:
            cancel_followers(connection, job.id, job.pipeline, job.position)
    return bool(ended.rowcount)


def put_back(
    log: Log, job: JobRecord, reason: ExitReason, *, run_after: datetime, error: str | None, counts: bool = True
) -> bool:
    """Queues it again for `run_after`; without `counts` as if it had not been tried. False as `end_job`."""
    values = {
        "status": JobStatus.QUEUED.value,
        "exit_reason": reason.value,
        "error": error,
        "run_after": run_after,
        "attempts": _JOB.c.attempts - (0 if counts else 1),
    }
    with log.writing() as connection:
        return bool(connection.execute(update(_JOB).where(*_held(job)).values(**values)).rowcount)


def held_now(log: Log) -> set[str]:
    """Everything that running jobs hold."""
    query = select(_JOB.c.holds).where(_JOB.c.status == JobStatus.RUNNING.value, _JOB.c.holds.is_not(None))
    with log.lookup() as connection:
        return set(connection.scalars(query))


def _is_any(log: Log, condition: ColumnElement[bool]) -> bool:
    """Looked up before anything is written: an idle worker takes no write lock."""
    with log.lookup() as connection:
        return connection.execute(select(_JOB.c.id).where(condition).limit(1)).first() is not None


def _nothing_in_the_way(exclusive: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    other = _JOB.alias("other")
    before_it = (other.c.pipeline == _JOB.c.pipeline) & (other.c.position < _JOB.c.position)
    older = (
        (other.c.schedule_id == _JOB.c.schedule_id) & (other.c.pipeline != _JOB.c.pipeline) & (other.c.id < _JOB.c.id)
    )
    running = other.c.status == JobStatus.RUNNING.value
    return [
        ~exists().where(before_it, other.c.status != JobStatus.DONE.value),
        ~exists().where(older, other.c.status.in_(UNFINISHED)),
        # The second condition is for offers without anything exclusive: "= NULL" becomes IS NULL on the way.
        ~exists().where(running, other.c.holds.is_not(None), other.c.holds == exclusive),
    ]


def _held(job: JobRecord) -> tuple[ColumnElement[bool], ...]:
    return _JOB.c.id == job.id, _JOB.c.claims == job.claims, _JOB.c.status == JobStatus.RUNNING.value


def _lease(cancel_requested: bool | None) -> Lease:
    if cancel_requested is None:
        return Lease.LOST
    return Lease.CANCEL if cancel_requested else Lease.KEPT


def _by_kind(values: Mapping[JobKind, str | None]) -> ColumnElement[Any]:
    given = {kind.value: value for kind, value in values.items() if value is not None}
    return case(given, value=_JOB.c.kind, else_=null()) if given else null()
