"""Groups as a training run chooses among them: what of, who played them, how often they were used. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import String, case, cast, exists, func, or_, select

from store.database import Log
from store.jobs import UNFINISHED
from store.schema import GroupRow, JobRow, RunRow, RunTrajectoryRow, ScenarioRow, TrajectoryRow
from store.vocabulary import JobStatus, Split


@dataclass(frozen=True)
class GroupSummary:
    id: int
    batch: str
    version: str
    scenario_hash: str
    scenario_name: str
    domain: str
    source: str
    split: Split
    members: int
    unfinished: int
    """Members that are still being played."""
    uses: int
    """Runs that train or trained on it. Failed ones do not count, unless their job is unfinished: it goes on with the
    run."""


def list_groups(log: Log, *, batches: Sequence[str] | None = None) -> list[GroupSummary]:
    """Newest first; of `batches`, or of the whole log."""
    played = (
        select(
            TrajectoryRow.group_id,
            func.count().label("members"),
            func.sum(case((TrajectoryRow.stop_reason.is_(None), 1), else_=0)).label("unfinished"),
        )
        .where(TrajectoryRow.group_id.is_not(None))
        .group_by(TrajectoryRow.group_id)
        .subquery()
    )
    goes_on = exists().where(
        JobRow.status.in_(UNFINISHED), RunRow.name == JobRow.pipeline + "/" + cast(JobRow.position, String)
    )
    used = (
        select(TrajectoryRow.group_id, func.count(RunRow.id.distinct()).label("uses"))
        .join(RunTrajectoryRow, RunTrajectoryRow.trajectory_id == TrajectoryRow.id)
        .join(RunRow, RunRow.id == RunTrajectoryRow.run_id)
        .where(TrajectoryRow.group_id.is_not(None), or_(RunRow.status != JobStatus.FAILED.value, goes_on))
        .group_by(TrajectoryRow.group_id)
        .subquery()
    )
    query = (
        select(
            GroupRow.id,
            GroupRow.batch,
            GroupRow.version,
            GroupRow.scenario_hash,
            ScenarioRow.name.label("scenario_name"),
            ScenarioRow.domain,
            ScenarioRow.source,
            ScenarioRow.split,
            func.coalesce(played.c.members, 0).label("members"),
            func.coalesce(played.c.unfinished, 0).label("unfinished"),
            func.coalesce(used.c.uses, 0).label("uses"),
        )
        .join(ScenarioRow, ScenarioRow.hash == GroupRow.scenario_hash)
        .outerjoin(played, played.c.group_id == GroupRow.id)
        .outerjoin(used, used.c.group_id == GroupRow.id)
        .order_by(GroupRow.id.desc())
    )
    if batches is not None:
        query = query.where(GroupRow.batch.in_(list(batches)))
    with log.lookup() as connection:
        rows = connection.execute(query).all()
    return [GroupSummary(**row._asdict() | {"split": Split(row.split)}) for row in rows]
