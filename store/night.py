"""What ran lately: jobs, training runs, stages of loops. Reads only.

The same work stands in one list alone: a run that a job of the list started is left out (it bears the job's name), and
so is a loop's stage whose work is a run of the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, String, and_, cast, func, or_, select

from store.database import AnyRow, Log
from store.jobs import JobRecord, job_record
from store.runs import RunRecord, run_record
from store.schema import JobRow, RunRow, StageRow, VersionRow, VersionStateRow
from store.stages import StageRecord, stage_record
from store.vocabulary import JobStatus, VersionState

LONGEST = 20
"""Rows of each list."""
T = TypeVar("T")


@dataclass(frozen=True)
class Ran(Generic[T]):
    """The newest of what ran."""

    rows: Sequence[T]
    more: int = 0
    """How many there are besides."""


@dataclass(frozen=True)
class RanRun:
    """A training run and the version that it made; None if it made none (yet)."""

    run: RunRecord
    version: str | None
    state: VersionState | None


def jobs_since(log: Log, since: datetime, limit: int = LONGEST) -> Ran[JobRecord]:
    """The jobs that ran since, or run now, newest first."""
    query = select(JobRow.__table__).where(_job_ran(since)).order_by(JobRow.id.desc())
    with log.lookup() as connection:
        rows, more = _newest(connection, query, limit)
    return Ran([job_record(row) for row in rows], more)


def runs_since(log: Log, since: datetime, limit: int = LONGEST) -> Ran[RanRun]:
    """The training runs since then that no such job started; also those that run, as far as the log knows."""
    of_no_job = RunRow.name.not_in(_names_of_jobs(since))
    query = select(RunRow.__table__).where(_run_ran(since), of_no_job).order_by(RunRow.id.desc())
    with log.lookup() as connection:
        rows, more = _newest(connection, query, limit)
        made = _made_by(connection, [row.id for row in rows])
    return Ran([RanRun(run_record(row), *made.get(row.id, (None, None))) for row in rows], more)


def stages_since(log: Log, since: datetime, limit: int = LONGEST) -> Ran[StageRecord]:
    """The stages of loops since then, or that run as far as the log knows, without those whose work is such a run."""
    row = StageRow
    # Loops call their runs so: train/loop.py, train/rounds.py.
    its_run = row.loop + "/" + func.replace(row.key, "/train", "")
    ran = or_(row.ended_at >= since, row.status == JobStatus.RUNNING.value)
    not_a_run = its_run.not_in(select(RunRow.name).where(_run_ran(since)))
    query = select(row.__table__).where(ran, not_a_run).order_by(row.started_at.desc(), row.id.desc())
    with log.lookup() as connection:
        rows, more = _newest(connection, query, limit)
    return Ran([stage_record(one) for one in rows], more)


def _newest(connection: Connection, query: Select[Any], limit: int) -> tuple[Sequence[AnyRow], int]:
    """The first rows, and how many more there are."""
    rows = connection.execute(query.limit(limit)).all()
    if len(rows) < limit:
        return rows, 0
    whole = select(func.count()).select_from(query.order_by(None).subquery())
    return rows, (connection.scalar(whole) or 0) - len(rows)


def _made_by(connection: Connection, run_ids: Sequence[int]) -> dict[int | None, tuple[str, VersionState | None]]:
    """The version that each of these runs made, with its newest state."""
    newest = select(func.max(VersionStateRow.id)).where(VersionStateRow.version == VersionRow.name).scalar_subquery()
    query = (
        select(VersionRow.run_id, VersionRow.name, VersionStateRow.state)
        .outerjoin(VersionStateRow, VersionStateRow.id == newest.correlate(VersionRow))
        .where(VersionRow.run_id.in_(run_ids))
    )
    found = connection.execute(query)
    return {run: (name, VersionState(state) if state else None) for run, name, state in found}


def _job_ran(since: datetime) -> ColumnElement[bool]:
    ran = or_(JobRow.ended_at >= since, JobRow.status == JobStatus.RUNNING.value)
    return and_(ran, JobRow.started_at.is_not(None))


def _names_of_jobs(since: datetime) -> Select[str]:
    """What the runs of these jobs are called (`JobRecord.name`)."""
    return select(JobRow.pipeline + "/" + cast(JobRow.position, String)).where(_job_ran(since))


def _run_ran(since: datetime) -> ColumnElement[bool]:
    return or_(RunRow.ended_at >= since, RunRow.status == JobStatus.RUNNING.value)
