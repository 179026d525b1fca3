"""A person says that an item is bad, or takes that back: objections, and the checklist revisions that follow from them.

Writes item_objection, restoration (store/objection_rows.py) and checklist rows, append-only. Verdicts on the item stay
as they are: which items count is decided by the newest revision of each checklist when a reward is computed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, exists, select

from store.checklists import (
    Checklist,
    append_checklist,
    checklist_history_in,
    current_checklists_in,
    without_item,
)
from store.database import Log, LogError
from store.objection_rows import items_called_bad, object_to, take_back_objections
from store.records import Item, Scenario
from store.schema import ItemObjectionRow, ItemRow, RewardRow, ScenarioRow, TrajectoryRow

__all__ = [
    "Objection",
    "ids_called_bad",
    "items_called_bad",
    "objections_of",
    "restore_item",
    "retire_item",
    "rewarded_trajectories",
]


@dataclass(frozen=True)
class Objection:
    """What a person said of an item, which may be back by now."""

    turn_index: int
    item_key: str
    person: str
    reason: str
    seen_in: str | None
    created_at: datetime


def retire_item(
    log: Log,
    scenario_hash: str,
    turn_index: int,
    item_key: str,
    *,
    person: str,
    reason: str,
    seen_in: str | None = None,
) -> list[Checklist]:
    """A person says that an item is bad: writes the objection and a revision without it, in one transaction.

    Weights of the others are scaled to add to 1 again; what depended on it depends on what it depended on. Raises
    LogError if the turn's current checklists have no such item. `seen_in` is the trajectory in which it was seen.
    Returns the revisions, one of each variant that had the item.
    """
    with log.writing() as connection:
        scenario = _locked_scenario(connection, scenario_hash, turn_index)
        variants = current_checklists_in(connection, [scenario])[scenario_hash][turn_index]
        holding = [variant for variant in variants if item_key in _keys(variant.items)]
        if not holding:
            keys = sorted({key for variant in variants for key in _keys(variant.items)})
            raise LogError(
                f"turn {turn_index} of scenario {scenario.name!r} has no item {item_key!r} in its current checklists, "
                f"only {', '.join(keys) or 'none'}"
            )
        object_to(connection, scenario_hash, turn_index, [item_key], person=person, reason=reason, seen_in=seen_in)
        why = f"item {item_key!r} is bad: {reason}"
        return [
            append_checklist(
                connection, _revised(checklist, without_item(checklist.items, item_key), author=person, reason=why)
            )
            for checklist in holding
        ]


def restore_item(
    log: Log,
    scenario_hash: str,
    turn_index: int,
    item_key: str,
    *,
    person: str,
    reason: str,
    if_possible: bool = False,
) -> list[Checklist]:
    """Takes an objection back: a revision with the item, its weight and dependencies as before, of each variant that
    had it.

    Items that were called bad meanwhile stay out. Raises LogError where the item was never there, is there with nobody
    objecting, or belongs to a checklist that has been written anew since; with `if_possible` such a checklist stays as
    it is, and the objection is taken back all the same.
    """
    with log.writing() as connection:
        scenario = _locked_scenario(connection, scenario_hash, turn_index)
        where = f"turn {turn_index} of scenario {scenario.name!r}"
        history = checklist_history_in(connection, scenario, turn_index)
        having = sorted({checklist.variant for checklist in history if item_key in _keys(checklist.items)})
        if not having:
            raise LogError(f"{where} never had an item {item_key!r}: there is nothing to restore")
        revisions = []
        for variant in having:
            of_variant = [checklist for checklist in history if checklist.variant == variant]
            now = of_variant[-1]
            if item_key in _keys(now.items):
                continue
            wanted = {item_key, *_keys(now.items)}
            whole = next((old for old in reversed(of_variant) if wanted <= set(_keys(old.items))), None)
            if whole is None and if_possible:
                continue
            if whole is None:
                raise LogError(
                    f"{where}: item {item_key!r} belongs to a checklist that has been written anew since (revision "
                    f"{now.revision} by {now.author}): it cannot be put back"
                )
            items = whole.items
            for key in _keys(whole.items):
                if key not in wanted:
                    items = without_item(items, key)
            why = f"item {item_key!r} is restored: {reason}"
            revisions.append(_revised(now, items, author=person, reason=why))
        # Before the revisions, which take back in their own words what still stands against what they hold.
        taken = take_back_objections(connection, scenario_hash, turn_index, [item_key], person=person, reason=reason)
        if not revisions and not taken:
            raise LogError(f"{where} has item {item_key!r} in its current checklist: there is nothing to restore")
        return [append_checklist(connection, revision) for revision in revisions]


def objections_of(log: Log, scenario_hashes: Iterable[str]) -> dict[str, list[Objection]]:
    """By scenario hash, in the order they were raised; scenarios without one are left out."""
    objection = ItemObjectionRow
    query = (
        select(
            ItemRow.scenario_hash,
            ItemRow.turn_index,
            ItemRow.key.label("item_key"),
            objection.person,
            objection.reason,
            objection.seen_in,
            objection.created_at,
        )
        .join(ItemRow, ItemRow.id == objection.item_id)
        .where(ItemRow.scenario_hash.in_(list(dict.fromkeys(scenario_hashes))))
        .order_by(objection.id)
    )
    found: dict[str, list[Objection]] = {}
    with log.lookup() as connection:
        for row in connection.execute(query):
            found.setdefault(row.scenario_hash, []).append(Objection(*row[1:]))
    return found


def ids_called_bad(log: Log) -> set[int]:
    """Of the whole log: `items_called_bad`."""
    with log.lookup() as connection:
        return set(connection.scalars(items_called_bad()))


def rewarded_trajectories(log: Log, scenario_hash: str) -> list[str]:
    """Ids of the scenario's trajectories that have a reward, in order: those that a new revision concerns."""
    query = (
        select(TrajectoryRow.id)
        .where(
            TrajectoryRow.scenario_hash == scenario_hash, exists().where(RewardRow.trajectory_id == TrajectoryRow.id)
        )
        .order_by(TrajectoryRow.id)
    )
    with log.lookup() as connection:
        return list(connection.scalars(query))


def _keys(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def _revised(checklist: Checklist, items: tuple[Item, ...], *, author: str, reason: str) -> Checklist:
    return replace(checklist, items=items, author=author, prompt_hash=None, reason=reason)


def _locked_scenario(connection: Connection, digest: str, turn_index: int) -> Scenario:
    """The scenario, its row locked until the transaction ends: two people who object at once come one after the other,
    so that neither revision brings back what the other one took out."""
    query = select(ScenarioRow.document).where(ScenarioRow.hash == digest).with_for_update(key_share=True)
    document = connection.scalar(query)
    if document is None:
        raise LogError(f"there is no scenario {digest!r} in the log")
    scenario = Scenario.model_validate(document)
    if not 0 <= turn_index < len(scenario.turns):
        raise LogError(f"scenario {scenario.name!r} has no turn {turn_index}: it has {len(scenario.turns)}")
    return scenario
