"""Workers: who there is, where, and when they were last heard of. Reads and writes worker rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select, update

from store.database import Log, insert_new
from store.schema import WorkerRow, now
from store.vocabulary import JobKind

SILENT_AFTER_S = 60.0
"""A worker beats every ten seconds."""


class WorkerState(StrEnum):
    THERE = "there"
    SILENT = "silent"
    """Not heard of for a minute: killed, or its machine or network is gone."""
    ENDED = "ended"


@dataclass(frozen=True)
class WorkerRecord:
    name: str
    host: str
    pid: int
    accelerators: tuple[str, ...]
    kinds: tuple[JobKind, ...]
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    """None while it works, and after it was killed."""

    def state(self, at: datetime) -> WorkerState:
        if self.stopped_at is not None:
            return WorkerState.ENDED
        silent = at - self.heartbeat_at > timedelta(seconds=SILENT_AFTER_S)
        return WorkerState.SILENT if silent else WorkerState.THERE


def register_worker(
    log: Log, name: str, *, host: str, pid: int, accelerators: Sequence[str], kinds: Sequence[JobKind]
) -> None:
    """A worker of that name that was there before is replaced."""
    moment = now()
    values = {
        "host": host,
        "pid": pid,
        "accelerators": list(accelerators),
        "kinds": [kind.value for kind in kinds],
        "started_at": moment,
        "heartbeat_at": moment,
        "stopped_at": None,
    }
    table = WorkerRow.__table__
    with log.writing() as connection:
        connection.execute(insert_new(log, table), values | {"name": name})
        connection.execute(update(table).where(table.c.name == name).values(**values))


def beat(log: Log, name: str) -> None:
    """The worker lives."""
    table = WorkerRow.__table__
    with log.writing() as connection:
        connection.execute(update(table).where(table.c.name == name).values(heartbeat_at=now()))


def sign_off(log: Log, name: str) -> None:
    """The worker ends in order."""
    table = WorkerRow.__table__
    with log.writing() as connection:
        connection.execute(update(table).where(table.c.name == name).values(heartbeat_at=now(), stopped_at=now()))


def list_workers(log: Log) -> list[WorkerRecord]:
    """The last heard of first."""
    with log.lookup() as connection:
        rows = connection.execute(select(WorkerRow.__table__).order_by(WorkerRow.heartbeat_at.desc())).all()
    return [
        WorkerRecord(
            **row._asdict()
            | {"accelerators": tuple(row.accelerators), "kinds": tuple(JobKind(kind) for kind in row.kinds)}
        )
        for row in rows
    ]
