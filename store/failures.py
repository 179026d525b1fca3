"""Items that failed lately, with what is needed to say what went wrong. Reads only; the naming is in
reward/failure_patterns.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from store.database import Log, in_chunks
from store.schema import ItemRow, ScenarioRow, TrajectoryRow, VerdictRow
from store.standing import has_verdict, winning_verdicts
from store.vocabulary import FocusOn, Outcome


@dataclass(frozen=True)
class FailedItem:
    """A FAIL that counts."""

    trajectory_id: str
    turn_index: int
    kind: str
    """The check's kind, or "llm" for an item without a check."""
    channel: FocusOn
    tool: str | None
    question: str
    reason: str
    """Of whoever says so."""
    key: str = ""
    """The item's, within its turn."""


def newest_judged(
    log: Log,
    version: str,
    *,
    origin: str | None = None,
    batch: str | None = None,
    domain: str | None = None,
    limit: int,
) -> list[str]:
    """Ids of the newest dialogues of a version that have a verdict that counts, newest first."""
    row = TrajectoryRow
    query = select(row.id).where(row.version == version, has_verdict())
    for column, value in ((row.origin, origin), (row.batch, batch)):
        if value is not None:
            query = query.where(column == value)
    if domain is not None:
        query = query.join(ScenarioRow, ScenarioRow.hash == row.scenario_hash).where(ScenarioRow.domain == domain)
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(row.created_at.desc(), row.id.desc()).limit(limit)))


def failures_in(log: Log, trajectory_ids: Sequence[str]) -> list[FailedItem]:
    """Every item of these dialogues that failed, in the order of the ids and of the turns."""
    found: list[FailedItem] = []
    with log.lookup() as connection:
        for chunk in in_chunks(trajectory_ids):
            winning = winning_verdicts(VerdictRow.trajectory_id.in_(chunk))
            query = (
                select(
                    VerdictRow.trajectory_id,
                    VerdictRow.turn_index,
                    ItemRow.kind,
                    ItemRow.focus_on,
                    ItemRow.tool,
                    ItemRow.question,
                    VerdictRow.reason,
                    ItemRow.key,
                )
                .join(winning, winning.c.id == VerdictRow.id)
                .join(ItemRow, ItemRow.id == VerdictRow.item_id)
                .where(winning.c.outcome == Outcome.FAIL.value)
            )
            for row in connection.execute(query):
                name, turn, kind, channel, tool, question, reason, key = row
                found.append(FailedItem(name, turn, kind, FocusOn(channel), tool, question, reason, key))
    place = {name: n for n, name in enumerate(trajectory_ids)}
    return sorted(found, key=lambda one: (place[one.trajectory_id], one.turn_index, one.question))
