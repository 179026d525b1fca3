"""Taking a person's verdict back: a row that names it, so that the log stays append-only (invariant 2).

Writes withdrawal rows. A verdict that was taken back stays in the log and is left out wherever verdicts are read; what
stood before it (another person's word, else a judge's) counts again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, insert, select

from store.database import Log, LogError
from store.schema import ItemObjectionRow, ItemRow, RestorationRow, VerdictRow, WithdrawalRow
from store.standing import is_person_s, stands
from store.tallies import kept_tallies
from store.vocabulary import VerdictSource


@dataclass(frozen=True)
class SaidLast:
    """The newest thing that a person said and did not take back: a verdict, or "this item is bad"."""

    trajectory_id: str
    turn_index: int
    item_key: str
    outcome: str | None
    """None: the item was called bad."""
    verdict_id: int | None
    created_at: datetime
    scenario_hash: str | None = None
    """Of an item that was called bad: its trajectory may be deleted by now."""


def withdraw_verdict(log: Log, verdict_id: int, *, person: str, reason: str) -> None:
    """`withdraw_verdicts` for one."""
    withdraw_verdicts(log, [verdict_id], person=person, reason=reason)


def withdraw_verdicts(log: Log, verdict_ids: Sequence[int], *, person: str, reason: str) -> None:
    """All of them or, on LogError, none: one that is not a person's, is not there, or was taken back before."""
    with log.writing() as connection:
        query = select(VerdictRow.id, VerdictRow.trajectory_id, VerdictRow.source, stands().label("stands"))
        found = {row.id: row for row in connection.execute(query.where(VerdictRow.id.in_(verdict_ids)))}
        for number in verdict_ids:
            row = found.get(number)
            if row is None:
                raise LogError(f"there is no verdict {number} in the log")
            if row.source != VerdictSource.HUMAN.value:
                raise LogError(f"verdict {number} is no person's: say another one, which wins over it")
            if not row.stands:
                raise LogError(f"verdict {number} was taken back before")
        rows = [
            {
                "trajectory_id": found[number].trajectory_id,
                "verdict_id": number,
                "person": person,
                "reason": reason,
            }
            for number in verdict_ids
        ]
        with kept_tallies(connection, [row["trajectory_id"] for row in rows]):
            connection.execute(insert(WithdrawalRow.__table__), rows)


def said_last(log: Log, person: str) -> list[SaidLast]:
    """What `person` would take back first: the verdicts that they gave at one moment in one turn, in their order, or
    one "this item is bad". Empty if nothing of theirs stands."""
    verdict = VerdictRow
    theirs = (
        select(verdict.trajectory_id, verdict.turn_index, ItemRow.key, verdict.outcome, verdict.id, verdict.created_at)
        .join(ItemRow, ItemRow.id == verdict.item_id)
        .where(is_person_s(), verdict.judge == person, stands())
    )
    newest = theirs.order_by(verdict.created_at.desc(), verdict.id.desc()).limit(1)
    objection = ItemObjectionRow
    bad = (
        select(objection.seen_in, ItemRow.turn_index, ItemRow.key, objection.created_at, ItemRow.scenario_hash)
        .join(ItemRow, ItemRow.id == objection.item_id)
        .where(
            objection.person == person,
            objection.seen_in.is_not(None),
            ~exists().where(RestorationRow.objection_id == objection.id),
        )
        .order_by(objection.id.desc())
        .limit(1)
    )
    with log.lookup() as connection:
        said, called = connection.execute(newest).first(), connection.execute(bad).first()
        if called is not None and (said is None or called.created_at > said.created_at):
            return [SaidLast(str(called[0]), called[1], called[2], None, None, called[3], called[4])]
        if said is None:
            return []
        together = theirs.where(
            verdict.trajectory_id == said.trajectory_id,
            verdict.turn_index == said.turn_index,
            verdict.created_at == said.created_at,
        )
        return [SaidLast(*row) for row in connection.execute(together.order_by(verdict.id))]
