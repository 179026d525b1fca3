"""The self-test of checklists that a scenario file brings, before they are imported: by code alone. Pure.

What it finds wrong is the file's to mend: a checklist that its own reference fails would pay nobody for doing right.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from env_sim.recordings import played_reference
from reward.checks import decide_check
from reward.examination import is_trusted
from reward.self_test import figures_of, run_self_test, undecided_text
from store.records import Item, Scenario, TurnRecord
from store.vocabulary import Outcome


@dataclass(frozen=True)
class FileTest:
    """What the self-test says of the scenarios of a file."""

    problems: tuple[str, ...]
    """Items with a check that the reference fails or that nobody can decide, a line each."""
    blind: tuple[str, ...]
    """Items that do not notice a damage, a line each."""
    items: int
    tested: int
    undecided: int
    """Of the items, those that it could not decide."""

    @property
    def lines(self) -> list[str]:
        """What a person is told, beside the problems."""
        counts = f"self-test: {self.items} items, {self.tested} tried on damaged references"
        said = [
            f"{counts}, {len(self.blind)} of them do not discriminate; {undecided_text(self.undecided, self.items)}"
        ]
        return said + [f"  does not discriminate: {one}" for one in self.blind]


def self_test_scenarios(scenarios: Iterable[Scenario], on_done: Callable[[int], object] | None = None) -> FileTest:
    """Tries the checklists of all these scenarios; `on_done` is told how many are done.

    A chat's reference proves nothing, so what it fails is no problem; neither is a turn without a reference.
    """
    problems: list[str] = []
    blind: list[str] = []
    items = tested = undecided = 0
    for done, scenario in enumerate(scenarios, start=1):
        for index, spoken in enumerate(scenario.turns):
            reference = played_reference(spoken, index)
            where = f"scenario {scenario.name!r}"
            items += len(spoken.checklist)
            if not reference.steps:
                undecided += len(spoken.checklist)
                continue
            tests = run_self_test(spoken.checklist, reference)
            figures = figures_of(tests)
            tested += figures["tested"]
            undecided += figures["undecided"]
            blind += [f"{where}, {one}" for one in figures["blind"]]
            failing = [
                item
                for item, test in zip(spoken.checklist, tests, strict=True)
                if test.on_reference in (Outcome.FAIL, Outcome.UNSCORED)
            ]
            if is_trusted(scenario, index):
                problems += [f"{where}, turn {index}, item {one.id!r}: {_why(one, reference)}" for one in failing]
        if on_done is not None:
            on_done(done)
    return FileTest(tuple(problems), tuple(blind), items, tested, undecided)


def _why(item: Item, reference: TurnRecord) -> str:
    assert item.check is not None  # without one nothing was decided here
    strict = ", and it is strict" if item.required_for_next_turn else ""
    try:
        return f"the reference fails its check{strict}: {decide_check(item.check, reference).reason}"
    except ValueError as error:
        return f"its check cannot be decided: {error}"
