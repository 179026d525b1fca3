"""What went wrong with the machinery lately: calls to judges, jobs, schedules. Reads only."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from store.database import Log
from store.schema import FiringRow, JobRow, ModelCallRow, ScheduleRow
from store.vocabulary import FiringOutcome, JobStatus, ModelRole


@dataclass(frozen=True)
class JudgeCalls:
    model: str
    calls: int
    failed: int
    error: str
    """Of the newest call that failed; empty if none did."""


def judge_calls(log: Log, since: datetime) -> list[JudgeCalls]:
    """The calls to each judge from `since` on."""
    row = ModelCallRow
    of_judges = (row.role == ModelRole.JUDGE.value, row.created_at >= since)
    query = select(row.model, func.count(), func.count(row.error), func.max(row.id).filter(row.error.is_not(None)))
    with log.lookup() as connection:
        rows = connection.execute(query.where(*of_judges).group_by(row.model).order_by(row.model)).all()
        newest = [last for *_, last in rows if last is not None]
        errors = {r.id: r.error for r in connection.execute(select(row.id, row.error).where(row.id.in_(newest)))}
    return [JudgeCalls(model, calls, failed, errors.get(last) or "") for model, calls, failed, last in rows]


def failed_jobs(log: Log, since: datetime) -> list[tuple[int, str, str]]:
    """Id, kind and error of the jobs that failed since, newest first."""
    row = JobRow
    failed = (row.status == JobStatus.FAILED.value, row.ended_at >= since)
    with log.lookup() as connection:
        found = connection.execute(select(row.id, row.kind, row.error).where(*failed).order_by(row.id.desc()).limit(20))
        return [(job.id, job.kind, job.error or "") for job in found]


def missed_firings(log: Log, since: datetime) -> list[tuple[str, str, str]]:
    """Schedule, due time and reason of what was left out because no worker ran."""
    query = (
        select(ScheduleRow.name, FiringRow.due, FiringRow.reason)
        .join(ScheduleRow, ScheduleRow.id == FiringRow.schedule_id)
        .where(FiringRow.outcome == FiringOutcome.MISSED.value, FiringRow.created_at >= since)
        .order_by(FiringRow.id.desc())
        .limit(20)
    )
    with log.lookup() as connection:
        return [(row.name, row.due, row.reason) for row in connection.execute(query)]


def overdue_schedules(log: Log, before: datetime) -> list[tuple[str, datetime]]:
    """Schedules that were due before this moment and still wait for a worker to notice."""
    row = ScheduleRow
    query = select(row.name, row.next_due).where(row.paused.is_(False), row.next_due < before).order_by(row.name)
    with log.lookup() as connection:
        return [(one.name, one.next_due) for one in connection.execute(query)]
