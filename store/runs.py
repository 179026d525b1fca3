"""Training runs: their settings, what they trained on, their metrics.

Writes run, metric and run_trajectory rows; the dialogues of cold starts are in store/run_dialogues.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, case, delete, func, insert, select, update

from store.database import AnyRow, Log, LogError, insert_new
from store.records import canonical_json
from store.schema import (
    MetricRow,
    RunRow,
    RunTrajectoryRow,
    StageRow,
    TrajectoryRow,
    VersionRow,
    VersionStateRow,
    now,
)
from store.vocabulary import AdvantageLevel, JobStatus, RunKind


@dataclass(frozen=True)
class RunRecord:
    id: int
    name: str
    kind: RunKind
    base_version: str | None
    seed: int
    settings: dict[str, Any]
    status: JobStatus
    error: str | None
    created_at: datetime
    ended_at: datetime | None


StepAdvantages: TypeAlias = Sequence[tuple[int, int, float]]
"""(turn, step, advantage) of each step of a trajectory that is in the loss."""


@dataclass(frozen=True)
class RunUse:
    """A run that trained on a trajectory."""

    run: str
    advantage: float
    """Equation 5 with the group's baseline."""
    level: AdvantageLevel | None
    by_step: StepAdvantages | None
    """What the loss took; None, as the level, for a run from before this was stored."""


def start_run(
    log: Log, name: str, kind: RunKind | str, base_version: str | None, seed: int, settings: dict[str, Any]
) -> int:
    """Starts a run and returns its id. One of that name that did not finish (killed or failed) is gone on with.

    Raises LogError if the run of that name is done, or was started with another kind, base version, seed or settings.
    """
    wanted = {
        "kind": RunKind(kind).value,
        "base_version": base_version,
        "seed": seed,
        "settings": settings,
    }
    table = RunRow.__table__
    with log.writing() as connection:
        connection.execute(insert_new(log, table), wanted | {"name": name, "status": JobStatus.RUNNING.value})
        row = connection.execute(select(table).where(table.c.name == name).with_for_update()).one()
        if row.status == JobStatus.DONE:
            raise LogError(f"run {name!r} is done: use another name")
        differing = [key for key in wanted if canonical_json(getattr(row, key)) != canonical_json(wanted[key])]
        if differing:
            raise LogError(f"run {name!r} was started with another {', '.join(differing)}: use another name")
        restart = {"status": JobStatus.RUNNING.value, "error": None, "ended_at": None}
        connection.execute(update(table).where(table.c.id == row.id).values(**restart))
    return int(row.id)


def finish_run(log: Log, run_id: int, status: JobStatus | str, error: str | None = None) -> None:
    """Ends a running run as done or failed. Raises LogError for any other status, and if it is not running."""
    status = JobStatus(status)
    if status not in (JobStatus.DONE, JobStatus.FAILED):
        raise LogError(f"a run ends as done or failed, not as {status}")
    table = RunRow.__table__
    with log.writing() as connection:
        ended = connection.execute(
            update(table)
            .where(table.c.id == run_id, table.c.status == JobStatus.RUNNING.value)
            .values(status=status.value, error=error, ended_at=now())
        )
    if not ended.rowcount:
        raise LogError(f"run {run_id} is not running")


def add_metrics(log: Log, run_id: int, step: int, metrics: dict[str, float]) -> None:
    """A NaN is no measurement and leaves no row. A step measured again (after a restart) counts as last measured."""
    rows = [
        {"run_id": run_id, "step": step, "name": name, "value": float(value)}
        for name, value in metrics.items()
        if not math.isnan(value)
    ]
    if rows:
        with log.writing() as connection:
            connection.execute(insert(MetricRow.__table__), rows)


def metrics_of(log: Log, run_id: int) -> dict[str, list[tuple[int, float]]]:
    """Metric name to its (step, value) pairs in order of step."""
    query = select(MetricRow.name, MetricRow.step, MetricRow.value).where(MetricRow.run_id == run_id)
    newest: dict[str, dict[int, float]] = {}
    with log.lookup() as connection:
        for name, step, value in connection.execute(query.order_by(MetricRow.id)):
            newest.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in sorted(newest.items())}


@dataclass(frozen=True)
class MetricValue:
    id: int
    name: str
    step: int
    value: float


def metrics_after(log: Log, run_id: int, after: int) -> list[MetricValue]:
    """What was measured since the row `after` (0: all of it), in the order in which it was written."""
    row = MetricRow
    query = select(row.id, row.name, row.step, row.value).where(row.run_id == run_id, row.id > after)
    with log.lookup() as connection:
        return [MetricValue(**found._asdict()) for found in connection.execute(query.order_by(row.id))]


def training_standing(log: Log) -> tuple[int, ...]:
    """A cheap fingerprint of how runs, versions and stages stand: it changes when one begins, ends or changes state."""
    running = JobStatus.RUNNING.value
    counts = [
        select(func.count()).select_from(RunRow),
        select(func.count()).select_from(RunRow).where(RunRow.status == running),
        select(func.count()).select_from(RunRow).where(RunRow.status == JobStatus.FAILED.value),
        select(func.coalesce(func.max(VersionStateRow.id), 0)),
        select(func.count()).select_from(VersionRow),
        select(func.count()).select_from(StageRow),
        select(func.count()).select_from(StageRow).where(StageRow.status == running),
    ]
    with log.lookup() as connection:
        return tuple(connection.execute(select(*(count.scalar_subquery() for count in counts))).one())


def used_by(log: Log, run_ids: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Of these runs: how many trajectories each trained on, and the share of them whose advantage is not 0."""
    used = func.coalesce(RunTrajectoryRow.largest, RunTrajectoryRow.advantage)
    trained = func.sum(case((used != 0, 1), else_=0))
    query = select(RunTrajectoryRow.run_id, func.count(), trained).where(RunTrajectoryRow.run_id.in_(run_ids))
    with log.lookup() as connection:
        rows = connection.execute(query.group_by(RunTrajectoryRow.run_id))
        return {row[0]: (row[1], row[2] / row[1]) for row in rows}


def add_run_trajectories(
    log: Log,
    run_id: int,
    advantages: dict[str, float],
    trained_with: Mapping[str, StepAdvantages] | None = None,
    level: AdvantageLevel | None = None,
) -> None:
    """Trajectory id to its advantage by equation 5: exactly those that the run trains on. What was said before of this
    run, by a try that was killed, is gone.

    `trained_with` and `level`: what the loss really takes for each step, by trajectory id, and how that was found.
    """
    table = RunTrajectoryRow.__table__
    rows = []
    for name, value in advantages.items():
        by_step = None if trained_with is None else trained_with.get(name, ())
        rows.append(
            {
                "run_id": run_id,
                "trajectory_id": name,
                "advantage": value,
                "level": level.value if level is not None else None,
                "by_step": None if by_step is None else [list(one) for one in by_step],
                "largest": None if by_step is None else max((abs(one[2]) for one in by_step), default=0.0),
            }
        )
    with log.writing() as connection:
        connection.execute(delete(table).where(table.c.run_id == run_id))
        if rows:
            connection.execute(insert(table), rows)


def groups_of_run(log: Log, run_id: int) -> list[int]:
    """The groups whose trajectories a run trains on, by id."""
    query = select(TrajectoryRow.group_id).join(RunTrajectoryRow, RunTrajectoryRow.trajectory_id == TrajectoryRow.id)
    query = query.where(RunTrajectoryRow.run_id == run_id, TrajectoryRow.group_id.is_not(None))
    with log.lookup() as connection:
        return list(connection.scalars(query.distinct().order_by(TrajectoryRow.group_id)))


def run_trajectories(log: Log, run_id: int) -> dict[str, float]:
    """Trajectory id to its advantage by equation 5, of those that the run trained on."""
    table = RunTrajectoryRow.__table__
    query = select(table.c.trajectory_id, table.c.advantage).where(table.c.run_id == run_id)
    with log.lookup() as connection:
        return dict(connection.execute(query.order_by(table.c.trajectory_id)).all())


def uses_of(log: Log, trajectory_id: str) -> list[RunUse]:
    """The runs that trained on a trajectory, oldest first, each with the advantages that it had there."""
    table = RunTrajectoryRow.__table__
    query = select(RunRow.name, table.c.advantage, table.c.level, table.c.by_step)
    query = query.join(RunRow, RunRow.id == table.c.run_id).where(table.c.trajectory_id == trajectory_id)
    with log.lookup() as connection:
        return [
            RunUse(
                row.name,
                row.advantage,
                AdvantageLevel(row.level) if row.level else None,
                None if row.by_step is None else tuple((one[0], one[1], one[2]) for one in row.by_step),
            )
            for row in connection.execute(query.order_by(RunRow.id))
        ]


def ended_run(log: Log, name: str) -> int | None:
    """The id of the run of that name if it is done: whoever started it was killed just afterwards."""
    query = select(RunRow.id).where(RunRow.name == name, RunRow.status == JobStatus.DONE.value)
    with log.lookup() as connection:
        return connection.scalar(query)


def list_runs(log: Log) -> list[RunRecord]:
    """Oldest first."""
    with log.lookup() as connection:
        return [run_record(row) for row in connection.execute(select(RunRow.__table__).order_by(RunRow.id))]


def get_run(log: Log, name: str) -> RunRecord:
    """Raises LogError if there is none."""
    with log.lookup() as connection:
        row = _find(connection, name)
    if row is None:
        raise LogError(f"there is no run {name!r} in the log")
    return run_record(row)


def _find(connection: Connection, name: str) -> AnyRow | None:
    return connection.execute(select(RunRow.__table__).where(RunRow.name == name)).first()


def run_record(row: AnyRow) -> RunRecord:
    return RunRecord(**row._asdict() | {"kind": RunKind(row.kind), "status": JobStatus(row.status)})
