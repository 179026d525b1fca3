"""Taking a person's verdict back: a row that names it, so that the log stays append-only (invariant 2).

Writes withdrawal rows. A verdict that was taken back stays in the log and is left out wherever verdicts are read; what
stood before it (another person's word, else a judge's) counts again.
"""

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


def withdraw_verdict(log: Log, verdict_id: int, *, person: str, reason: str) -> None:
    """Raises LogError for a verdict that is not a person's, is not there, or was taken back before."""
    with log.writing() as connection:
        query = select(VerdictRow.trajectory_id, VerdictRow.source, stands().label("stands"))
        row = connection.execute(query.where(VerdictRow.id == verdict_id)).first()
        if row is None:
            raise LogError(f"there is no verdict {verdict_id} in the log")
        if row.source != VerdictSource.HUMAN.value:
            raise LogError(f"verdict {verdict_id} is no person's: say another one, which wins over it")
        if not row.stands:
            raise LogError(f"verdict {verdict_id} was taken back before")
        values = {"trajectory_id": row.trajectory_id, "verdict_id": verdict_id, "person": person, "reason": reason}
        with kept_tallies(connection, [row.trajectory_id]):
            connection.execute(insert(WithdrawalRow.__table__), [values])


def said_last(log: Log, person: str) -> SaidLast | None:
    """What `person` would take back first; None if nothing of theirs stands."""
    verdict = (
        select(
            VerdictRow.trajectory_id,
            VerdictRow.turn_index,
            ItemRow.key,
            VerdictRow.outcome,
            VerdictRow.id,
            VerdictRow.created_at,
        )
        .join(ItemRow, ItemRow.id == VerdictRow.item_id)
        .where(is_person_s(), VerdictRow.judge == person, stands())
        .order_by(VerdictRow.created_at.desc(), VerdictRow.id.desc())
        .limit(1)
    )
    objection = ItemObjectionRow
    bad = (
        select(objection.seen_in, ItemRow.turn_index, ItemRow.key, objection.created_at)
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
        said, called = connection.execute(verdict).first(), connection.execute(bad).first()
    newest = []
    if said is not None:
        newest.append(SaidLast(*said))
    if called is not None:
        newest.append(SaidLast(str(called[0]), called[1], called[2], None, None, called[3]))
    return max(newest, key=lambda one: one.created_at, default=None)
