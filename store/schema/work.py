"""Schedules, the jobs that they queue, and the workers that do them (docs/schedules.md)."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base, BigKey, now

_RUNNING = "status = 'running'"


class ScheduleRow(Base):
    """When which jobs are queued (docs/schedules.md)."""

    __tablename__ = "schedule"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    trigger: Mapped[dict[str, Any]]
    jobs: Mapped[list[Any]]
    """[{"kind": …, "payload": {…}, "priority": …, "max_attempts": …}, …], one pipeline."""
    zone: Mapped[str] = mapped_column(String(64))
    missed: Mapped[str] = mapped_column(String(8))
    overlap: Mapped[str] = mapped_column(String(8))
    paused: Mapped[bool]
    armed_at: Mapped[datetime]
    """What happened before it was made, changed or resumed does not fire it."""
    mark: Mapped[int] = mapped_column(BigInteger)
    """The newest verdict when it last fired: turns are counted from there."""
    last_fired: Mapped[datetime | None]
    next_due: Mapped[datetime | None]
    """Of cron triggers."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class FiringRow(Base):
    """A time at which a schedule was due, and what came of it; unique, so that no two workers fire it."""

    __tablename__ = "firing"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id"))
    due: Mapped[str] = mapped_column(String(64))
    """The cron time, the mark that turns were counted from, or the job that was done."""
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    pipeline: Mapped[str | None] = mapped_column(String(96))
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("schedule_id", "due"),)


class JobRow(Base):
    """A piece of work for a worker: queued, taken under a lease, ended (docs/schedules.md)."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int]
    run_after: Mapped[datetime]
    pipeline: Mapped[str] = mapped_column(String(96))
    position: Mapped[int]
    """Within its pipeline; it starts when those before are done."""
    schedule_id: Mapped[int | None] = mapped_column(ForeignKey("schedule.id"), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    """Tries that count; one that was stopped with its worker does not."""
    max_attempts: Mapped[int]
    claims: Mapped[int] = mapped_column(default=0)
    """How often it was taken: who holds an older number holds nothing."""
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    host: Mapped[str | None] = mapped_column(String(64))
    accelerator: Mapped[str | None] = mapped_column(String(32))
    holds: Mapped[str | None] = mapped_column(String(128))
    """What only one running job has at a time: "anna/cuda:0", "anna/gateway:8080"; kept when it has ended."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    notes: Mapped[dict[str, Any] | None]
    """What it chose when it first started, so that whoever takes it over goes on with the same work."""
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    exit_reason: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("pipeline", "position"),
        Index("job_by_status", "status", "priority", "id"),
        Index("job_holds", "holds", unique=True, sqlite_where=text(_RUNNING), postgresql_where=text(_RUNNING)),
    )


class JobLogRow(Base):
    """A line that a job's process wrote."""

    __tablename__ = "job_log"
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class WorkerRow(Base):
    __tablename__ = "worker"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    accelerators: Mapped[list[Any]]
    kinds: Mapped[list[Any]]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
