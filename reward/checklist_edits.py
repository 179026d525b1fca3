"""A person's new revision of a turn's checklist: read, tested against the reference, stored.

The page and `checkloop checklist edit` call the same functions. What a code check can refuse is refused before anything
is written; what is only doubtful is said. Reads scenarios; writes checklist and item rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from env_sim.recordings import played_reference
from reward.annotation_rules import problems_of, spoken_text, undecidable, with_scaled_weights
from reward.examination import is_trusted
from reward.self_test import ItemTest, run_self_test
from store.checklists import Checklist, revise_checklist
from store.database import Log, LogError
from store.records import Item, Scenario, check_checklist
from store.scenarios import get_scenario
from store.vocabulary import Outcome


class EditRefused(LogError):
    """A checklist that cannot be used: every reason, a line each."""


@dataclass(frozen=True)
class TriedEdit:
    """What is known of a checklist before it is stored."""

    items: tuple[Item, ...]
    """Weights scaled to add to 1."""
    tests: tuple[ItemTest, ...]
    """Of each item, by code alone; none where the turn has no reference."""
    refusals: tuple[str, ...]
    """Why it cannot be stored."""
    remarks: tuple[str, ...]
    """What a person should look at and may have meant."""


def read_items(text: str) -> tuple[Item, ...]:
    """Items as in a scenario file, a JSON list. Raises EditRefused with every field that is wrong."""
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EditRefused(f"the items are no JSON: {error}") from error
    if not isinstance(listed, list):
        raise EditRefused('the items are no JSON list: write [{"id": …, "focus_on": …, "question": …}, …]')
    items, problems = items_of_documents(listed)
    if problems:
        raise EditRefused("these items cannot be read:\n  " + "\n  ".join(problems))
    return items


def items_of_documents(listed: Sequence[Any]) -> tuple[tuple[Item, ...], list[str]]:
    """Those that are items, and what is wrong with the others, field by field."""
    items: list[Item] = []
    problems: list[str] = []
    for number, document in enumerate(listed, start=1):
        try:
            items.append(Item.model_validate(document))
        except ValidationError as error:
            problems += [
                f"item {number}, {'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}"
                for one in error.errors()
            ]
    return tuple(items), problems


def try_edit(scenario: Scenario, turn_index: int, items: Sequence[Item]) -> TriedEdit:
    """Tests the items as the turn's checklist, without writing anything."""
    reference = played_reference(scenario.turns[turn_index], turn_index)
    if not any(item.weight > 0 for item in items):
        return TriedEdit(tuple(items), (), ("no item is left that weighs anything",), ())
    scaled = with_scaled_weights(items)
    try:
        check_checklist(scaled)
    except ValueError as error:
        return TriedEdit(scaled, (), (str(error),), ())
    if unsound := [problem for item in scaled for problem in undecidable(item)]:
        return TriedEdit(scaled, (), tuple(unsound), ())
    tests = tuple(run_self_test(scaled, reference)) if reference.steps else ()
    refusals = [
        f"the reference fails item {test.key!r}, so it asks for something else than what is right"
        for test in tests
        if test.on_reference is Outcome.FAIL and is_trusted(scenario, turn_index)
    ]
    remarks = problems_of(scaled, reference, spoken_text(scenario, turn_index), trusted=False)
    remarks += [
        f"item {test.key!r} does not notice: {', '.join(dict.fromkeys(test.passed_damages))}"
        for test in tests
        if test.discriminates is False
    ]
    return TriedEdit(scaled, tests, tuple(refusals), tuple(remarks))


def store_edit(
    log: Log,
    scenario_hash: str,
    turn_index: int,
    items: Sequence[Item],
    *,
    person: str,
    reason: str,
    variant: int = 0,
    made_of: int = 0,
) -> Checklist:
    """Tests the items and appends them as the revision after `made_of`; returns them as stored.

    Items whose words are the same keep their verdicts; a new one is judged by the next `checkloop judge`. Raises
    EditRefused for a checklist that `try_edit` refuses, LogError where another revision came meanwhile.
    """
    if not person.strip() or not reason.strip():
        raise EditRefused("a revision has an author and a reason: say who writes it, and why")
    scenario = get_scenario(log, scenario_hash)
    if not 0 <= turn_index < len(scenario.turns):
        raise EditRefused(f"scenario {scenario.name!r} has no turn {turn_index}: it has {len(scenario.turns)}")
    tried = try_edit(scenario, turn_index, items)
    if tried.refusals:
        raise EditRefused("this checklist cannot be used:\n  " + "\n  ".join(tried.refusals))
    wanted = Checklist(scenario_hash, turn_index, tried.items, variant, made_of, person.strip(), reason=reason.strip())
    return revise_checklist(log, wanted)
