"""What waits to be played or judged. Reads scenarios, trajectories and rewards."""

from collections.abc import Sequence

from sqlalchemy import exists, func, or_, select

from store.database import Log
from store.schema import RewardRow, ScenarioRow, TrajectoryRow
from store.vocabulary import Origin, Split, StopReason


def least_played(
    log: Log, *, split: Split, domain: str | None = None, origin: Origin | None = None, count: int
) -> list[str]:
    """Hashes of the scenarios that were played least often with this origin, then in order of hash, which says nothing
    about them; without an origin in that order alone."""
    query = select(ScenarioRow.hash).where(ScenarioRow.split == split.value)
    if domain is not None:
        query = query.where(ScenarioRow.domain == domain)
    if origin is not None:
        played = (TrajectoryRow.scenario_hash == ScenarioRow.hash) & (TrajectoryRow.origin == origin.value)
        query = query.outerjoin(TrajectoryRow, played).group_by(ScenarioRow.hash)
        query = query.order_by(func.count(TrajectoryRow.id))
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(ScenarioRow.hash).limit(count)))


def unjudged(log: Log, *, batches: Sequence[str] | None, limit: int, retry_unscored: bool = False) -> list[str]:
    """Trajectories of a scenario that ended well and have no reward, oldest first; of `batches`, or of the whole log.

    With `retry_unscored` also those whose newest reward has items that nobody could judge.
    """
    reward = select(RewardRow.unscored).where(RewardRow.trajectory_id == TrajectoryRow.id)
    newest = reward.order_by(RewardRow.id.desc()).limit(1).scalar_subquery()
    waiting = ~exists().where(RewardRow.trajectory_id == TrajectoryRow.id)
    query = select(TrajectoryRow.id).where(
        TrajectoryRow.scenario_hash.is_not(None),
        TrajectoryRow.stop_reason.is_not(None),
        TrajectoryRow.stop_reason != StopReason.FAILED.value,
        or_(waiting, newest > 0) if retry_unscored else waiting,
    )
    if batches is not None:
        query = query.where(TrajectoryRow.batch.in_(list(batches)))
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(TrajectoryRow.created_at, TrajectoryRow.id).limit(limit)))
