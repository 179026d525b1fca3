"""What jobs wrote, line by line. Reads and writes job_log rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select

from store.database import Log
from store.jobs import JobRecord
from store.schema import JobLogRow, JobRow

MAX_LINE = 4000
"""Characters; the rest of a longer line is cut off."""


@dataclass(frozen=True)
class LogLine:
    number: int
    """From 1, over all attempts of the job."""
    text: str
    created_at: datetime


def add_lines(log: Log, job: JobRecord, lines: Sequence[tuple[datetime, str]]) -> bool:
    """Appends lines in order. False, with nothing written, if the job was taken by another worker since."""
    if not lines:
        return True
    with log.writing() as connection:
        # The lock makes the numbers that follow ours alone.
        claims = connection.scalar(select(JobRow.claims).where(JobRow.id == job.id).with_for_update())
        if claims != job.claims:
            return False
        last = connection.scalar(select(func.max(JobLogRow.number)).where(JobLogRow.job_id == job.id)) or 0
        rows = [
            {"job_id": job.id, "number": number, "text": text[:MAX_LINE], "created_at": moment}
            for number, (moment, text) in enumerate(lines, start=last + 1)
        ]
        connection.execute(insert(JobLogRow.__table__), rows)
    return True


def read_lines(log: Log, job_id: int, *, after: int = 0, limit: int | None = None) -> list[LogLine]:
    """The lines with a number greater than `after`, in order."""
    columns = (JobLogRow.number, JobLogRow.text, JobLogRow.created_at)
    query = select(*columns).where(JobLogRow.job_id == job_id, JobLogRow.number > after)
    with log.lookup() as connection:
        rows = connection.execute(query.order_by(JobLogRow.number).limit(limit)).all()
    return [LogLine(row.number, row.text, row.created_at) for row in rows]


def newest_lines(log: Log, job_ids: Sequence[int]) -> dict[int, LogLine]:
    """The newest line of each job: how far it is. Jobs that have written nothing are left out."""
    newest = (
        select(JobLogRow.job_id, func.max(JobLogRow.number).label("number"))
        .where(JobLogRow.job_id.in_(job_ids))
        .group_by(JobLogRow.job_id)
        .subquery()
    )
    columns = (JobLogRow.job_id, JobLogRow.number, JobLogRow.text, JobLogRow.created_at)
    is_newest = (JobLogRow.job_id == newest.c.job_id) & (JobLogRow.number == newest.c.number)
    with log.lookup() as connection:
        rows = connection.execute(select(*columns).join(newest, is_newest)).all()
    return {row.job_id: LogLine(row.number, row.text, row.created_at) for row in rows}
