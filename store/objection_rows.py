"""Rows of "this item is bad" and of what takes it back, within the caller's transaction.

Whoever appends a checklist writes them too (store/checklists.py), so that what people called bad and what the
checklists hold agree.
"""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, Select, exists, insert, select

from store.schema import ItemObjectionRow, ItemRow, RestorationRow


def items_called_bad() -> Select[int]:
    """Ids of the items that a person called bad, or left out of a checklist, and nobody restored since."""
    restored = exists().where(RestorationRow.objection_id == ItemObjectionRow.id)
    return select(ItemObjectionRow.item_id).where(~restored)


def object_to(
    connection: Connection,
    scenario_hash: str,
    turn_index: int,
    keys: Iterable[str],
    *,
    person: str,
    reason: str,
    seen_in: str | None = None,
) -> None:
    """Writes that these items of a turn are bad."""
    item = ItemRow
    query = select(item.id).where(*_of_turn(scenario_hash, turn_index, keys)).order_by(item.id)
    rows = [
        {"item_id": number, "person": person, "reason": reason, "seen_in": seen_in}
        for number in connection.scalars(query)
    ]
    if rows:
        connection.execute(insert(ItemObjectionRow.__table__), rows)


def take_back_objections(
    connection: Connection, scenario_hash: str, turn_index: int, keys: Iterable[str], *, person: str, reason: str
) -> int:
    """Takes back whatever stands against these items of a turn, whoever said it; how many objections that were."""
    standing = (
        select(ItemObjectionRow.id)
        .join(ItemRow, ItemRow.id == ItemObjectionRow.item_id)
        .where(
            *_of_turn(scenario_hash, turn_index, keys),
            ~exists().where(RestorationRow.objection_id == ItemObjectionRow.id),
        )
        .order_by(ItemObjectionRow.id)
    )
    rows = [{"objection_id": number, "person": person, "reason": reason} for number in connection.scalars(standing)]
    if rows:
        connection.execute(insert(RestorationRow.__table__), rows)
    return len(rows)


def called_bad_in(connection: Connection, scenario_hash: str, turn_index: int) -> set[str]:
    """Keys of the turn's items that stand called bad."""
    item = ItemRow
    query = select(item.key).where(
        item.scenario_hash == scenario_hash, item.turn_index == turn_index, item.id.in_(items_called_bad())
    )
    return set(connection.scalars(query))


def _of_turn(scenario_hash: str, turn_index: int, keys: Iterable[str]) -> tuple[ColumnElement[bool], ...]:
    return (
        ItemRow.scenario_hash == scenario_hash,
        ItemRow.turn_index == turn_index,
        ItemRow.key.in_(list(keys)),
    )
