"""Checklists that count: a scenario's own, or the newest revision of each variant; appended, never changed.

A scenario's own checklist is revision 0 of variant 0 and stands in the scenario. Verdicts point at items, whose key is
unique within scenario and turn, so that a revision which keeps an item keeps its verdicts; weights belong to revisions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, insert, select

from store.database import AnyRow, Log, LogError, in_chunks
from store.objection_rows import called_bad_in, object_to, take_back_objections
from store.records import Item, Scenario, check_checklist
from store.scenarios import item_row
from store.schema import ChecklistRow, ItemRow, ScenarioRow

OWN = "scenario"
"""Author of a checklist that came with its scenario."""
KEY_LENGTH = 128
"""Characters of an item's key at most."""


@dataclass(frozen=True)
class Checklist:
    """One revision of one variant of a turn's checklist."""

    scenario_hash: str
    turn_index: int
    items: tuple[Item, ...]
    variant: int = 0
    revision: int = 0
    author: str = OWN
    prompt_hash: str | None = None
    reason: str = ""


def current_checklists(log: Log, scenarios: Iterable[Scenario]) -> dict[str, list[list[Checklist]]]:
    """For each scenario hash and turn the newest revision of every variant, variants in order.

    Variant 0 is there if the scenario has a checklist of its own for the turn or a revision says so; a revision may be
    empty (nothing sound is left of it).
    """
    with log.lookup() as connection:
        return current_checklists_in(connection, scenarios)


def current_checklists_in(connection: Connection, scenarios: Iterable[Scenario]) -> dict[str, list[list[Checklist]]]:
    """`current_checklists`, as the caller's transaction sees them."""
    by_hash = {scenario.hash: scenario for scenario in scenarios}
    newest: dict[tuple[str, int], dict[int, Checklist]] = {}
    for digest, scenario in by_hash.items():
        for index, turn in enumerate(scenario.turns):
            own = Checklist(digest, index, turn.checklist)
            newest[digest, index] = {0: own} if turn.checklist else {}
    for chunk in in_chunks(list(by_hash)):
        query = select(ChecklistRow.__table__).where(ChecklistRow.scenario_hash.in_(chunk))
        for row in connection.execute(query.order_by(ChecklistRow.revision)):
            newest[row.scenario_hash, row.turn_index][row.variant] = _checklist(row)
    return {
        digest: [[found for _, found in sorted(newest[digest, index].items())] for index in range(len(scenario.turns))]
        for digest, scenario in by_hash.items()
    }


def checklist_history(log: Log, scenario: Scenario, turn_index: int) -> list[Checklist]:
    """Every revision of every variant of a turn, oldest first; the scenario's own included."""
    with log.lookup() as connection:
        return checklist_history_in(connection, scenario, turn_index)


def checklist_history_in(connection: Connection, scenario: Scenario, turn_index: int) -> list[Checklist]:
    """`checklist_history`, as the caller's transaction sees it."""
    own = Checklist(scenario.hash, turn_index, scenario.turns[turn_index].checklist)
    query = select(ChecklistRow.__table__).where(
        ChecklistRow.scenario_hash == scenario.hash, ChecklistRow.turn_index == turn_index
    )
    rows = [_checklist(row) for row in connection.execute(query.order_by(ChecklistRow.id))]
    return [own, *rows] if own.items else rows


def add_checklists(log: Log, checklists: Sequence[Checklist]) -> list[Checklist]:
    """Appends each as the next revision of its variant (`revision` is set here); all of them or, on LogError, none.

    Items are told apart by their words: an item that stands in the turn with the same words keeps its key and verdicts;
    a key that is taken by other words gets a number behind it ("right_city~2"). Returns them as stored.
    """
    with log.writing() as connection:
        return [append_checklist(connection, checklist) for checklist in checklists]


def revise_checklist(log: Log, checklist: Checklist) -> Checklist:
    """Appends it as the revision after `checklist.revision`, on which whoever wrote it worked; returns it as stored.

    Who leaves an item out of it, so that no variant has it any more, objects to the item: else the turns that it was
    judged in would stay open to reviewers for ever. Raises LogError if the variant has no such revision or another one
    came meanwhile: nobody's work is written over.
    """
    where = f"turn {checklist.turn_index}, variant {checklist.variant}"
    with log.writing() as connection:
        document = connection.scalar(select(ScenarioRow.document).where(ScenarioRow.hash == checklist.scenario_hash))
        if document is None:
            raise LogError(f"there is no scenario {checklist.scenario_hash!r} in the log")
        scenario = Scenario.model_validate(document)
        if not 0 <= checklist.turn_index < len(scenario.turns):
            raise LogError(f"scenario {scenario.name!r} has no turn {checklist.turn_index}")
        current = current_checklists_in(connection, [scenario])[scenario.hash][checklist.turn_index]
        newest = next((one for one in current if one.variant == checklist.variant), None)
        if newest is None and (checklist.revision or checklist.variant):
            raise LogError(f"{where}: there is no checklist to revise")
        if newest is not None and newest.revision != checklist.revision:
            raise LogError(
                f"{where}: {newest.author} wrote revision {newest.revision} meanwhile, this one was made of revision "
                f"{checklist.revision}: load the checklist again"
            )
        stored = append_checklist(connection, checklist)
        kept = {item.id for one in (*current, stored) if one is not newest for item in one.items}
        gone = [item.id for item in newest.items if item.id not in kept] if newest is not None else []
        if gone:
            bad = called_bad_in(connection, scenario.hash, stored.turn_index)
            gone = [key for key in gone if key not in bad]
            said = {"person": stored.author, "reason": stored.reason}
            object_to(connection, scenario.hash, stored.turn_index, gone, **said)
        return stored


def without_item(items: Sequence[Item], key: str) -> tuple[Item, ...]:
    """The other items, their weights adding to 1; equal ones where all that is left weighed nothing. Pure."""
    gone = next(item for item in items if item.id == key)
    left = [item for item in items if item.id != key]
    total = sum(item.weight for item in left)
    kept = []
    for item in left:
        depends_on = item.depends_on
        if key in depends_on:
            depends_on = tuple(dict.fromkeys(k for d in depends_on for k in (gone.depends_on if d == key else (d,))))
        weight = item.weight / total if total > 0 else 1 / len(left)
        kept.append(item.model_copy(update={"depends_on": depends_on, "weight": weight}))
    return tuple(kept)


def append_checklist(connection: Connection, checklist: Checklist) -> Checklist:
    """`add_checklists` for one, in the caller's transaction. What stood against an item that it has is taken back: it
    counts again."""
    where = f"turn {checklist.turn_index}, variant {checklist.variant}"
    try:
        check_checklist(checklist.items)
    except ValueError as error:
        raise LogError(f"the checklist of {where} is unsound: {error}") from error
    known = _known_items(connection, checklist.scenario_hash, checklist.turn_index)
    renamed = _keys(checklist.items, known)
    if long := next((key for key in renamed.values() if len(key) > KEY_LENGTH), None):
        raise LogError(f"the checklist of {where}: item key {long!r} is longer than {KEY_LENGTH} characters")
    items = tuple(
        item.model_copy(update={"id": renamed[item.id], "depends_on": tuple(renamed[key] for key in item.depends_on)})
        for item in checklist.items
    )
    new = [item_row(checklist.scenario_hash, checklist.turn_index, item) for item in items if item.id not in known]
    if new:
        connection.execute(insert(ItemRow.__table__), new)
    last = connection.scalars(
        select(ChecklistRow.revision)
        .where(
            ChecklistRow.scenario_hash == checklist.scenario_hash,
            ChecklistRow.turn_index == checklist.turn_index,
            ChecklistRow.variant == checklist.variant,
        )
        .order_by(ChecklistRow.revision.desc())
    ).first()
    stored = replace(checklist, items=items, revision=1 if last is None else last + 1)
    row = {
        "scenario_hash": stored.scenario_hash,
        "turn_index": stored.turn_index,
        "variant": stored.variant,
        "revision": stored.revision,
        "author": stored.author,
        "prompt_hash": stored.prompt_hash,
        "reason": stored.reason,
        "items": [item.model_dump(mode="json") for item in items],
    }
    connection.execute(insert(ChecklistRow.__table__), [row])
    take_back_objections(
        connection,
        stored.scenario_hash,
        stored.turn_index,
        [item.id for item in items],
        person=stored.author,
        reason=f"revision {stored.revision} has it: {stored.reason}",
    )
    return stored


def _keys(items: Sequence[Item], known: Mapping[str, Item]) -> dict[str, str]:
    """The key of each item by its id: its own, that of a known item with the same words, or its own with a number."""
    keys: dict[str, str] = {}
    for item in items:
        same = [key for key, other in known.items() if other.words == item.words and key not in keys.values()]
        if same:
            keys[item.id] = item.id if item.id in same else same[0]
    for item in items:
        key, number = item.id, 2
        while item.id not in keys:
            if key not in known and key not in keys.values():
                keys[item.id] = key
            key, number = f"{item.id}~{number}", number + 1
    return keys


def _known_items(connection: Connection, scenario_hash: str, turn_index: int) -> dict[str, Item]:
    """Every item that the turn ever had, by its key."""
    document = connection.scalar(select(ScenarioRow.document).where(ScenarioRow.hash == scenario_hash))
    if document is None:
        raise LogError(f"there is no scenario {scenario_hash!r} in the log")
    turns = Scenario.model_validate(document).turns
    if not 0 <= turn_index < len(turns):
        raise LogError(f"scenario {scenario_hash!r} has no turn {turn_index}: it has {len(turns)}")
    known = {item.id: item for item in turns[turn_index].checklist}
    query = select(ChecklistRow.items).where(
        ChecklistRow.scenario_hash == scenario_hash, ChecklistRow.turn_index == turn_index
    )
    for items in connection.scalars(query.order_by(ChecklistRow.id)):
        for item in map(Item.model_validate, items):
            known.setdefault(item.id, item)
    return known


def _checklist(row: AnyRow) -> Checklist:
    return Checklist(
        scenario_hash=row.scenario_hash,
        turn_index=row.turn_index,
        items=tuple(Item.model_validate(item) for item in row.items),
        variant=row.variant,
        revision=row.revision,
        author=row.author,
        prompt_hash=row.prompt_hash,
        reason=row.reason,
    )
