"""Loops and their stages: which stage is done, with what result, so that a killed loop goes on where it stood."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from store.database import AnyRow, Log, LogError, insert_new
from store.records import canonical_json
from store.schema import LoopRow, StageRow, now
from store.vocabulary import JobStatus


@dataclass(frozen=True)
class LoopRecord:
    name: str
    seed: int
    settings: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class StageRecord:
    id: int
    loop: str
    key: str
    status: JobStatus
    result: dict[str, Any] | None
    error: str | None
    seconds: float | None
    """Of all tries that ended; while it runs, of those before."""
    started_at: datetime
    ended_at: datetime | None


def open_loop(log: Log, name: str, seed: int, settings: dict[str, Any]) -> LoopRecord:
    """Creates the loop, or returns the one of that name if it has the same seed and settings.

    Raises LogError that says what differs: a resumed loop is the same loop, never half of each.
    """
    table = LoopRow.__table__
    with log.writing() as connection:
        connection.execute(insert_new(log, table), {"name": name, "seed": seed, "settings": settings})
        loop = LoopRecord(**connection.execute(select(table).where(table.c.name == name)).one()._asdict())
    differences = _differences("seed", loop.seed, seed) + _differences("", loop.settings, settings)
    if differences:
        raise LogError(
            f"the loop {name!r} was started with other settings ({'; '.join(differences)}): "
            "set them back to go on with it, or use another name for a fresh one"
        )
    return loop


def stage_result(log: Log, loop: str, key: str) -> dict[str, Any] | None:
    """The result of a stage that is done, else None."""
    table = StageRow.__table__
    query = select(table.c.result).where(
        table.c.loop == loop, table.c.key == key, table.c.status == JobStatus.DONE.value
    )
    with log.lookup() as connection:
        row = connection.execute(query).first()
    return None if row is None else row.result or {}


def start_stage(log: Log, loop: str, key: str) -> float | None:
    """Marks the stage as running; one that was killed or failed starts again in the same row. LogError if done.

    Seconds of its earlier tries, None if this is the first; a try that was killed left none.
    """
    table = StageRow.__table__
    running = {"status": JobStatus.RUNNING.value, "started_at": now()}
    fresh = {"error": None, "ended_at": None}
    tried = select(table.c.seconds).where(table.c.loop == loop, table.c.key == key)
    with log.writing() as connection:
        earlier = connection.execute(tried).first()
        connection.execute(insert_new(log, table), running | {"loop": loop, "key": key})
        restarted = connection.execute(
            update(table)
            .where(table.c.loop == loop, table.c.key == key, table.c.status != JobStatus.DONE.value)
            .values(**running, **fresh)
        )
    if not restarted.rowcount:
        raise LogError(f"stage {key!r} of loop {loop!r} is done: nothing is done twice")
    return None if earlier is None else float(earlier.seconds or 0.0)


def finish_stage(log: Log, loop: str, key: str, result: dict[str, Any], seconds: float) -> None:
    """`seconds`: of all tries together, as in `fail_stage`. Raises LogError if the stage is not running."""
    _end(log, loop, key, {"status": JobStatus.DONE.value, "result": result, "seconds": seconds})


def fail_stage(log: Log, loop: str, key: str, error: str, seconds: float | None = None) -> None:
    """Raises LogError if the stage is not running."""
    _end(log, loop, key, {"status": JobStatus.FAILED.value, "error": error, "seconds": seconds})


def list_stages(log: Log, loop: str) -> list[StageRecord]:
    """In the order in which they were first started."""
    table = StageRow.__table__
    with log.lookup() as connection:
        return [
            stage_record(row) for row in connection.execute(select(table).where(table.c.loop == loop).order_by("id"))
        ]


def running_loops(log: Log) -> set[str]:
    """Loops that are amid a stage, as far as the log knows."""
    table = StageRow.__table__
    query = select(table.c.loop).where(table.c.status == JobStatus.RUNNING.value).distinct()
    with log.lookup() as connection:
        return set(connection.scalars(query))


def list_loops(log: Log) -> list[LoopRecord]:
    """Oldest first."""
    table = LoopRow.__table__
    with log.lookup() as connection:
        rows = connection.execute(select(table).order_by(table.c.created_at, table.c.name)).all()
    return [LoopRecord(**row._asdict()) for row in rows]


def _end(log: Log, loop: str, key: str, values: dict[str, Any]) -> None:
    table = StageRow.__table__
    with log.writing() as connection:
        ended = connection.execute(
            update(table)
            .where(table.c.loop == loop, table.c.key == key, table.c.status == JobStatus.RUNNING.value)
            .values(**values, ended_at=now())
        )
    if not ended.rowcount:
        raise LogError(f"stage {key!r} of loop {loop!r} is not running: start it first")


def stage_record(row: AnyRow) -> StageRecord:
    return StageRecord(**row._asdict() | {"status": JobStatus(row.status)})


def _differences(path: str, stored: Any, given: Any) -> list[str]:
    """Where two settings differ, each as "grpo.kl: 0.0 then, 0.1 now"; compared as the JSON they are stored as."""
    if isinstance(stored, dict) and isinstance(given, dict):
        return [
            line
            for key in sorted(stored.keys() | given.keys())
            for line in _differences(f"{path}.{key}".lstrip("."), stored.get(key), given.get(key))
        ]
    then, today = canonical_json(stored), canonical_json(given)
    return [] if then == today else [f"{path}: {then} then, {today} now"]
