"""An item called bad leaves the checklist and comes back as it was; what was said about it stays. On both databases."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from store.checklists import Checklist, add_checklists, checklist_history, current_checklists, without_item
from store.database import Log, LogError
from store.objections import objections_of, restore_item, retire_item, rewarded_trajectories
from store.records import Item, Scenario, ScenarioTurn
from store.scenarios import add_scenarios, item_ids
from store.verdicts import Reward, Verdict, add_rewards, add_verdicts, verdicts_of
from store.vocabulary import FocusOn, Outcome, VerdictSource
from tests.store_examples import a_scenario, start


def item(key: str, weight: float, *depends_on: str, **more: Any) -> Item:
    question = f"Does {key} hold?"
    return Item(id=key, focus_on=FocusOn.REPLY, question=question, weight=weight, depends_on=depends_on, **more)


CHAIN = (item("found", 0.5), item("booked", 0.3, "found"), item("told", 0.2, "booked"))
"""told depends on booked, which depends on found."""


def played(*checklists: tuple[Item, ...]) -> Scenario:
    turns = tuple(ScenarioTurn(user=f"Question {n}", checklist=items) for n, items in enumerate(checklists or [CHAIN]))
    return a_scenario("trip", turns=turns)


@pytest.fixture
def scenario(log: Log) -> Scenario:
    made = played()
    add_scenarios(log, [made])
    return made


def current(log: Log, scenario: Scenario) -> list[Checklist]:
    return current_checklists(log, [scenario])[scenario.hash][0]


def shape(checklist: Checklist) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Weight and dependencies by item."""
    return {item.id: (round(item.weight, 12), item.depends_on) for item in checklist.items}


def bad(log: Log, scenario: Scenario, key: str, **more: Any) -> list[Checklist]:
    return retire_item(log, scenario.hash, 0, key, person="Ada", reason="asks for style", **more)


def restored(log: Log, scenario: Scenario, key: str) -> list[Checklist]:
    return restore_item(log, scenario.hash, 0, key, person="Ada", reason="it was right")


def test_a_bad_item_leaves_the_next_revision(log: Log, scenario: Scenario) -> None:
    """Without booked (0.3) 0.5 and 0.2 are left: 0.5/0.7 and 0.2/0.7. told then depends on what booked depended on."""
    (revision,) = bad(log, scenario, "booked", seen_in="t1")
    assert shape(revision) == {"found": (round(0.5 / 0.7, 12), ()), "told": (round(0.2 / 0.7, 12), ("found",))}
    assert (revision.revision, revision.author) == (1, "Ada")
    assert "'booked' is bad: asks for style" in revision.reason
    assert current(log, scenario) == [revision]
    assert [old.revision for old in checklist_history(log, scenario, 0)] == [0, 1]
    (objection,) = objections_of(log, [scenario.hash])[scenario.hash]
    assert (objection.item_key, objection.person, objection.seen_in) == ("booked", "Ada", "t1")


def test_verdicts_on_it_and_on_the_others_stay(log: Log, scenario: Scenario) -> None:
    start(log, "t1", scenario=scenario)
    ids = item_ids(log, scenario.hash)
    said = [
        Verdict("t1", 0, ids[0, key], key, Outcome.FAIL, None, VerdictSource.LLM, "big-judge", None, "no", "")
        for key in ("found", "booked", "told")
    ]
    add_verdicts(log, said)
    bad(log, scenario, "booked")
    assert [v.item_key for v in verdicts_of(log, ["t1"])["t1"]] == ["found", "booked", "told"]
    assert item_ids(log, scenario.hash) == ids


def test_it_leaves_every_variant_that_has_it_and_no_other(log: Log, scenario: Scenario) -> None:
    add_checklists(
        log,
        [
            Checklist(scenario.hash, 0, (item("found", 0.25), item("polite", 0.75)), variant=1, author="annotator"),
            Checklist(scenario.hash, 0, (item("kind", 1.0),), variant=2, author="annotator"),
        ],
    )
    revisions = bad(log, scenario, "found")
    assert [(r.variant, r.revision, [i.id for i in r.items]) for r in revisions] == [
        (0, 1, ["booked", "told"]),
        (1, 2, ["polite"]),
    ]
    assert [i.id for i in current(log, scenario)[2].items] == ["kind"]
    assert [r.variant for r in restored(log, scenario, "found")] == [0, 1]
    assert [[i.id for i in c.items] for c in current(log, scenario)] == [
        ["found", "booked", "told"],
        ["found", "polite"],
        ["kind"],
    ]


def test_the_last_item_leaves_an_empty_checklist(log: Log) -> None:
    scenario = played((item("only", 1.0),))
    add_scenarios(log, [scenario])
    (revision,) = bad(log, scenario, "only")
    assert revision.items == () and current(log, scenario) == [revision]
    restored(log, scenario, "only")
    assert shape(current(log, scenario)[0]) == {"only": (1.0, ())}


def test_weightless_items_share_what_the_bad_one_leaves() -> None:
    left = without_item((item("all", 1.0), item("a", 0.0), item("b", 0.0)), "all")
    assert [i.weight for i in left] == [0.5, 0.5]


@pytest.mark.parametrize("order", [("booked",), ("found", "told"), ("booked", "found"), ("told", "booked", "found")])
@pytest.mark.parametrize("backwards", [False, True])
def test_restored_items_are_as_they_were(log: Log, scenario: Scenario, order: tuple[str, ...], backwards: bool) -> None:
    before = shape(current(log, scenario)[0])
    for key in order:
        bad(log, scenario, key)
    for key in reversed(order) if backwards else order:
        restored(log, scenario, key)
    assert shape(current(log, scenario)[0]) == before
    assert current(log, scenario)[0].revision == 2 * len(order)


def test_restoring_one_of_two_leaves_the_other_out(log: Log, scenario: Scenario) -> None:
    """found (0.5) and told (0.2) of the first revision: 0.5/0.7 and 0.2/0.7."""
    bad(log, scenario, "found")
    bad(log, scenario, "booked")
    (revision,) = restored(log, scenario, "found")
    assert shape(revision) == {"found": (round(0.5 / 0.7, 12), ()), "told": (round(0.2 / 0.7, 12), ("found",))}


def test_what_cannot_be_done_is_said(log: Log, scenario: Scenario) -> None:
    with pytest.raises(LogError, match="no item 'nonsense' in its current checklists, only booked, found, told"):
        bad(log, scenario, "nonsense")
    with pytest.raises(LogError, match="has no turn 7: it has 1"):
        retire_item(log, scenario.hash, 7, "found", person="Ada", reason="x")
    with pytest.raises(LogError, match="no scenario 'ffff'"):
        retire_item(log, "ffff", 0, "found", person="Ada", reason="x")
    with pytest.raises(LogError, match="has item 'found' in its current checklist"):
        restored(log, scenario, "found")
    with pytest.raises(LogError, match="never had an item 'nonsense'"):
        restored(log, scenario, "nonsense")
    bad(log, scenario, "found")
    with pytest.raises(LogError, match="no item 'found' in its current checklists, only booked, told"):
        bad(log, scenario, "found")
    add_checklists(log, [Checklist(scenario.hash, 0, (item("fresh", 1.0),), author="annotator")])
    with pytest.raises(LogError, match="written anew since \\(revision 2 by annotator\\)"):
        restored(log, scenario, "found")
    assert len(objections_of(log, [scenario.hash])[scenario.hash]) == 1


def test_two_people_at_once_both_get_their_way(log: Log) -> None:
    keys = [f"i{n}" for n in range(8)]
    scenario = played(tuple(item(key, 1 / 8) for key in keys))
    add_scenarios(log, [scenario])
    with ThreadPoolExecutor(6) as people:
        list(people.map(lambda key: bad(log, scenario, key), keys[:6]))
    (revision,) = current(log, scenario)
    assert revision.revision == 6
    assert shape(revision) == {"i6": (0.5, ()), "i7": (0.5, ())}


def test_only_rewarded_trajectories_of_the_scenario_are_concerned(log: Log, scenario: Scenario) -> None:
    start(log, "t2", "t1", "unjudged", scenario=scenario)
    start(log, "other", scenario=a_scenario("elsewhere"))
    add_rewards(log, [Reward(name, 0.5, (0.5,), False, 0) for name in ("t2", "t1", "t1", "other")])
    assert rewarded_trajectories(log, scenario.hash) == ["t1", "t2"]
