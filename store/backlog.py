"""What waits to be played or judged. Reads scenarios, trajectories and rewards."""

from collections.abc import Sequence

from sqlalchemy import case, exists, func, or_, select

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
    """Trajectories of a scenario that ended well (a chat need not have) and have no reward, oldest first; of `batches`,
    or of the whole log.

    Also those whose newest reward was computed while an item waited for a judge: one that a revision brought, one that
    failed by rule until a person said otherwise (`unasked`, reward.scoring). With `retry_unscored` also those that have
    items that nobody could judge.
    """
    waits = RewardRow.made_of["unasked"].as_integer() > 0
    of_it = RewardRow.trajectory_id == TrajectoryRow.id
    counts = select(RewardRow.unscored if retry_unscored else case((waits, 1), else_=0)).where(of_it)
    newest = counts.order_by(RewardRow.id.desc()).limit(1).scalar_subquery()
    query = select(TrajectoryRow.id).where(
        TrajectoryRow.scenario_hash.is_not(None),
        # As `judgeable_trajectories`: of an open chat the turns that became its scenario are over.
        (TrajectoryRow.stop_reason != StopReason.FAILED.value)
        | (TrajectoryRow.stop_reason.is_(None) & (TrajectoryRow.origin == Origin.CHAT.value)),
        or_(~exists().where(of_it), newest > 0),
    )
    if batches is not None:
        query = query.where(TrajectoryRow.batch.in_(list(batches)))
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(TrajectoryRow.created_at, TrajectoryRow.id).limit(limit)))
