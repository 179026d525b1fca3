"""What a policy version played of which scenarios, with the newest rewards and the verdicts that count. Reads only.

Two versions are paired over it in reward/comparison.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, select

from store.database import Log, in_chunks
from store.schema import ItemRow, RatingRow, RewardRow, ScenarioRow, StepRow, TrajectoryRow, VerdictRow
from store.standing import newest_reward, winning_verdicts
from store.vocabulary import Origin, Outcome, Split


@dataclass(frozen=True)
class PlayedDialogue:
    trajectory_id: str
    scenario_hash: str
    scenario: str
    domain: str
    seen: bool
    seed: int | None
    """Of the simulated world: the same scenario and seed is the same world."""
    value: float | None
    """Its newest reward (equation 4); None where it could not be judged."""
    fully_passed: bool | None
    created_at: datetime


@dataclass(frozen=True)
class ItemOutcome:
    """The verdict that counts on one item in one dialogue."""

    trajectory_id: str
    item_id: int
    outcome: Outcome


@dataclass(frozen=True)
class ItemWords:
    id: int
    scenario_hash: str
    turn_index: int
    key: str
    kind: str
    question: str
    strict: bool


def played_by(
    log: Log, version: str, *, origin: Origin, split: Split | None = None, domain: str | None = None
) -> list[PlayedDialogue]:
    """Dialogues of scenarios that a version played to their end, all of them sampled by it, in the order of play."""
    query = (
        select(
            TrajectoryRow.id,
            ScenarioRow.hash,
            ScenarioRow.name,
            ScenarioRow.domain,
            ScenarioRow.seen,
            TrajectoryRow.seed,
            RewardRow.value,
            RewardRow.fully_passed,
            TrajectoryRow.created_at,
        )
        .select_from(TrajectoryRow)
        .join(ScenarioRow, ScenarioRow.hash == TrajectoryRow.scenario_hash)
        .outerjoin(RewardRow, RewardRow.id == newest_reward())
        .where(
            TrajectoryRow.version == version,
            TrajectoryRow.origin == origin.value,
            TrajectoryRow.stop_reason.is_not(None),
            ~_answered_by_another(),
        )
        .order_by(TrajectoryRow.created_at, TrajectoryRow.id)
    )
    if split is not None:
        query = query.where(ScenarioRow.split == split.value)
    if domain is not None:
        query = query.where(ScenarioRow.domain == domain)
    with log.lookup() as connection:
        return [PlayedDialogue(*row) for row in connection.execute(query)]


def judged_chats(log: Log, version: str, since: datetime) -> list[float]:
    """The newest rewards of chats that began since then and that this version alone answered, in their order."""
    query = (
        select(RewardRow.value)
        .select_from(TrajectoryRow)
        .join(RewardRow, RewardRow.id == newest_reward())
        .where(*_chats_of(version, since), RewardRow.value.is_not(None))
        .order_by(TrajectoryRow.created_at, TrajectoryRow.id)
    )
    with log.lookup() as connection:
        return [value for value in connection.scalars(query) if value is not None]


def thumbs_of(log: Log, version: str, since: datetime) -> tuple[int, int]:
    """Turns of such chats with people's thumbs up, and down; the newest of a turn counts."""
    newest = select(func.max(RatingRow.id)).group_by(RatingRow.trajectory_id, RatingRow.turn_index)
    query = (
        select(RatingRow.value, func.count())
        .join(TrajectoryRow, TrajectoryRow.id == RatingRow.trajectory_id)
        .where(RatingRow.id.in_(newest), *_chats_of(version, since))
        .group_by(RatingRow.value)
    )
    with log.lookup() as connection:
        counts: dict[int, int] = dict(connection.execute(query).all())
    return counts.get(1, 0), counts.get(-1, 0)


def _chats_of(version: str, since: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        TrajectoryRow.origin == Origin.CHAT.value,
        TrajectoryRow.version == version,
        TrajectoryRow.created_at >= since,
        ~_answered_by_another(),
    )


def _answered_by_another() -> ColumnElement[bool]:
    """Some step of the trajectory was sampled by another version than it began with."""
    return exists().where(StepRow.trajectory_id == TrajectoryRow.id, StepRow.version != TrajectoryRow.version)


def versions_that_played(log: Log, origin: Origin) -> list[str]:
    """The versions that have played scenarios, in their order."""
    query = (
        select(TrajectoryRow.version)
        .where(
            TrajectoryRow.version.is_not(None),
            TrajectoryRow.scenario_hash.is_not(None),
            TrajectoryRow.origin == origin.value,
        )
        .distinct()
        .order_by(TrajectoryRow.version)
    )
    with log.lookup() as connection:
        return [version for version in connection.scalars(query) if version]


def outcomes_of(log: Log, trajectory_ids: Iterable[str]) -> list[ItemOutcome]:
    """The verdict that counts on every item of these dialogues."""
    found: list[ItemOutcome] = []
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(trajectory_ids))):
            winning = winning_verdicts(VerdictRow.trajectory_id.in_(chunk))
            query = select(winning.c.trajectory_id, winning.c.item_id, winning.c.outcome)
            found += [ItemOutcome(row[0], row[1], Outcome(row[2])) for row in connection.execute(query)]
    return found


def words_of(log: Log, item_ids: Iterable[int]) -> dict[int, ItemWords]:
    """What each item asks, and where it stands."""
    row = ItemRow
    columns = (row.id, row.scenario_hash, row.turn_index, row.key, row.kind, row.question, row.strict)
    found: dict[int, ItemWords] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(item_ids))):
            for values in connection.execute(select(*columns).where(row.id.in_(chunk))):
                found[values.id] = ItemWords(*values)
    return found
