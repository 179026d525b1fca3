"""Tests a checklist before it is used: the reference must satisfy every item, damaged references must fail those that
the damage concerns. Pure, apart from a judge that is handed in for items without a check.

An item that some damage does not fail does not discriminate: it would pay for it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reward.checks import decide_check
from reward.damages import Damage, Damaged, damages
from reward.llm_judge import Dialogue
from store.records import Item, TurnRecord
from store.vocabulary import Outcome

JudgeItems = Callable[[Dialogue, Sequence[Item]], Awaitable[Sequence[Outcome]]]
"""Outcomes of the items in the dialogue's turn, in their order."""

MOST_ASKED = 3
"""Damages of one item that a judge is asked about: each may be a call of its own."""


@dataclass(frozen=True)
class ItemTest:
    """What became of one item. An outcome None: nobody was there to decide it."""

    turn_index: int
    key: str
    has_check: bool
    on_reference: Outcome | None
    on_damaged: tuple[tuple[Damage, Outcome | None], ...]

    @property
    def decided(self) -> list[tuple[Damage, Outcome]]:
        return [(kind, said) for kind, said in self.on_damaged if said in (Outcome.PASS, Outcome.FAIL) and said]

    @property
    def passed_damages(self) -> list[Damage]:
        """The damages that it did not notice."""
        return [kind for kind, said in self.decided if said is Outcome.PASS]

    @property
    def discriminates(self) -> bool | None:
        """None where it could not be tested: no damage concerns it, nobody could decide, or the reference fails it."""
        if self.on_reference is not Outcome.PASS or not self.decided:
            return None
        return not self.passed_damages

    @property
    def undecided(self) -> bool:
        """Whether nobody could decide the item, or no damage concerns it."""
        return self.on_reference is not Outcome.FAIL and self.discriminates is None


def undecided_text(undecided: int, items: int) -> str:
    """How much of a self-test proves nothing, in words."""
    if not undecided:
        return "every item was decided"
    share = f"{100 * undecided / items:.0f} %"
    return f"{undecided} ({share}) could not be decided: no check, no reference, or no damage that concerns them"


def run_self_test(items: Sequence[Item], reference: TurnRecord) -> list[ItemTest]:
    """The self-test by code alone: items without a check are left undecided."""
    return [_tested(item, reference, _by_check(item, reference), damages(item, reference)) for item in items]


async def run_self_test_with(items: Sequence[Item], dialogue: Dialogue, judge: JudgeItems) -> list[ItemTest]:
    """The self-test with `judge` for items without a check: it is asked about the reference, which is the dialogue's
    turn, and about each damaged one. Raises what `judge` raises."""
    reference = dialogue.turn
    tests = {item.id: test for item, test in zip(items, run_self_test(items, reference), strict=True)}
    asked = [item for item in items if item.check is None]
    concerned: dict[str, tuple[TurnRecord, list[tuple[Item, int]]]] = {}
    made = {item.id: damages(item, reference)[:MOST_ASKED] for item in asked}
    for item in asked:
        for place, damaged in enumerate(made[item.id]):
            key = damaged.turn.model_dump_json()
            concerned.setdefault(key, (damaged.turn, []))[1].append((item, place))
    groups = [(reference, [(item, -1) for item in asked])] if asked else []
    groups += concerned.values()
    answers = await asyncio.gather(
        *(judge(replace(dialogue, turn=turn), [item for item, _ in of]) for turn, of in groups)
    )
    said: dict[tuple[str, int], Outcome] = {}
    for (_, of), outcomes in zip(groups, answers, strict=True):
        for (item, place), outcome in zip(of, outcomes, strict=True):
            said[item.id, place] = outcome
    for item in asked:
        results = tuple((damaged.kind, said[item.id, place]) for place, damaged in enumerate(made[item.id]))
        tests[item.id] = ItemTest(reference.index, item.id, False, said[item.id, -1], results)
    return [tests[item.id] for item in items]


def figures_of(tests: Iterable[ItemTest]) -> dict[str, Any]:
    """Counts and shares over items, as JSON; `by_damage` is [noticed, tried] for each kind."""
    tests = list(tests)
    tested = [test for test in tests if test.discriminates is not None]
    blind = [test for test in tested if not test.discriminates]
    tried: Counter[str] = Counter()
    noticed: Counter[str] = Counter()
    for test in tested:
        for kind, outcome in test.decided:
            tried[kind.value] += 1
            noticed[kind.value] += outcome is Outcome.FAIL
    return {
        "items": len(tests),
        "with_check": sum(test.has_check for test in tests),
        "reference_passes": sum(test.on_reference is Outcome.PASS for test in tests),
        "reference_fails": sum(test.on_reference is Outcome.FAIL for test in tests),
        "tested": len(tested),
        "undecided": sum(test.undecided for test in tests),
        "not_discriminating": len(blind),
        "not_discriminating_share": len(blind) / len(tested) if tested else None,
        "blind": [f"turn {test.turn_index}, {test.key}: {', '.join(test.passed_damages)}" for test in blind],
        "by_damage": {kind: [noticed[kind], tried[kind]] for kind in sorted(tried)},
    }


def _tested(item: Item, reference: TurnRecord, said: Outcome | None, made: Sequence[Damaged]) -> ItemTest:
    results = tuple((damaged.kind, _by_check(item, damaged.turn)) for damaged in made)
    return ItemTest(reference.index, item.id, item.check is not None, said, results)


def _by_check(item: Item, turn: TurnRecord) -> Outcome | None:
    if item.check is None:
        return None
    try:
        return Outcome.PASS if decide_check(item.check, turn).satisfied else Outcome.FAIL
    except ValueError:
        return Outcome.UNSCORED
