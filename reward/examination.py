"""Examines checklists that an annotator or a person wrote: validates, settles checks, tests, stores.

Sound ones are stored with the annotation that says what became of the dialogue, in one transaction; of unsound ones
every reason is collected. Reads scenarios; writes annotation and checklist rows.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from agent.role_endpoint import Said
from env_sim.chat_worlds import CHAT_SOURCE
from env_sim.recordings import played_reference
from reward.annotation_form import TurnDraft, read_answer
from reward.annotation_rules import problems_of, spoken_text, with_scaled_weights
from reward.checklist_proposals import Settled, settle_check
from reward.llm_judge import Dialogue
from reward.self_test import ItemTest, JudgeItems, figures_of, run_self_test, run_self_test_with
from store.annotations import Annotation, record_annotation
from store.checklists import Checklist, without_item
from store.database import Log, LogError
from store.records import Item, Scenario
from store.vocabulary import AnnotationStatus, Outcome


class AnswerRefused(LogError):
    """Checklists that a person wrote are unsound: every reason, a line each."""


@dataclass(frozen=True)
class Work:
    """A variant of a scenario's checklists that is to be written, and for which turns."""

    scenario: Scenario
    variant: int
    turns: tuple[int, ...]


@dataclass
class Cost:
    """Sums over the answers about a dialogue."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    """None where the model's price is not known."""

    def add(self, said: "Said | Cost") -> None:
        self.calls += said.calls if isinstance(said, Cost) else 1
        self.prompt_tokens += said.prompt_tokens
        self.cached_tokens += said.cached_tokens
        self.completion_tokens += said.completion_tokens
        if said.usd is not None:
            self.usd = (self.usd or 0.0) + said.usd


@dataclass(frozen=True)
class Annotated:
    """What became of one piece of work."""

    work: Work
    status: AnnotationStatus | None
    """None where the endpoint gave no answer: nothing is stored, the work is still to do."""
    problems: tuple[str, ...]
    """Why it needs a person or failed; of what is done, the items left out."""
    cost: Cost
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Examined:
    """A turn's checklist that may be stored, with what is known of it; or `problems`."""

    turn: int
    items: tuple[Item, ...] = ()
    settled: Sequence[Settled] = ()
    bad_proposals: Sequence[str] = ()
    tests: Sequence[ItemTest] = ()
    left_out: Sequence[str] = ()
    problems: list[str] = field(default_factory=list)


def is_trusted(scenario: Scenario, turn: int) -> bool:
    """Whether the turn's reference proves what is right: not in a chat, where it is what the policy did."""
    return scenario.source != CHAT_SOURCE and bool(scenario.turns[turn].reference)


async def examine(scenario: Scenario, turn: int, draft: TurnDraft, judge_items: JudgeItems | None = None) -> Examined:
    """The turn's checklist as it can be stored, or the reasons why it cannot.

    Items that a trusted reference fails are left out; what is left has to be a checklist still. `judge_items` also
    tries items without a check; what it raises is raised.
    """
    spoken = scenario.turns[turn]
    reference = played_reference(spoken, turn)
    trusted = is_trusted(scenario, turn)
    tools = {tool.name: tool for tool in scenario.tools}
    settled = [settle_check(one.item, one.proposal, reference, tools) for one in draft.drafts]
    bad = [f"turn {turn}, {one.item.id}: {one.bad_proposal}" for one in draft.drafts if one.bad_proposal]
    items: tuple[Item, ...] = tuple(one.item for one in settled)
    problems = [*draft.problems, *problems_of(items, reference, spoken_text(scenario, turn), trusted)]
    if problems:
        return Examined(turn, problems=problems)
    items = with_scaled_weights(items)
    tests: list[ItemTest] = []
    if reference.steps and judge_items is None:
        tests = run_self_test(items, reference)
    elif reference.steps and judge_items is not None:
        earlier = tuple(played_reference(scenario.turns[before], before) for before in range(turn))
        tests = await run_self_test_with(items, Dialogue(reference, earlier, scenario.hash), judge_items)
    failing = [test.key for test in tests if trusted and test.on_reference is Outcome.FAIL]
    if len(failing) == len(items):
        return Examined(turn, problems=[f"the reference fails every item: {', '.join(failing)}"])
    for key in failing:
        items = without_item(items, key)
    if failing and (problems := problems_of(items, reference, spoken_text(scenario, turn), trusted)):
        without = f"without what the reference fails ({', '.join(failing)})"
        return Examined(turn, problems=[f"{without}: {problem}" for problem in problems])
    left_out = [f"turn {turn}, item {key!r} is left out: the reference fails it" for key in failing]
    return Examined(turn, items, settled, bad, tests, left_out)


async def store_examined(
    log: Log,
    work: Work,
    accepted: Mapping[int, Examined],
    problems: Mapping[int, Sequence[str]],
    *,
    author: str,
    prompt_hash: str,
    answers: int,
    cost: Cost,
) -> Annotated:
    """Writes the checklists of a dialogue; with any problem none of them, and the dialogue is handed to a person."""
    said = tuple(f"turn {turn}: {problem}" for turn, of in sorted(problems.items()) for problem in of)
    left_out = tuple(chain.from_iterable(accepted[turn].left_out for turn in sorted(accepted)))
    annotation = Annotation(
        scenario_hash=work.scenario.hash,
        variant=work.variant,
        annotator=author,
        prompt_hash=prompt_hash,
        status=AnnotationStatus.NEEDS_PERSON if problems else AnnotationStatus.DONE,
        attempts=answers,
        problems=said or left_out,
        figures=_figures(list(accepted.values()), cost),
    )
    checklists = [
        Checklist(
            scenario_hash=annotation.scenario_hash,
            turn_index=turn,
            items=accepted[turn].items,
            variant=work.variant,
            author=author,
            prompt_hash=prompt_hash or None,
            reason=f"written by {author}",
        )
        for turn in sorted(accepted)
        if not problems
    ]
    await asyncio.to_thread(record_annotation, log, annotation, checklists)
    return Annotated(work, annotation.status, annotation.problems, cost, annotation.figures)


async def store_answer(
    log: Log, work: Work, text: str, *, person: str, judge_items: JudgeItems | None = None
) -> Annotated:
    """Stores checklists that a person wrote in the annotator's form, examined like its own.

    Raises AnswerRefused, with nothing stored, if any of the turns is unsound.
    """
    tools = {tool.name: tool for tool in work.scenario.tools}
    drafts = read_answer(text, work.turns, tools)
    examined = {turn: await examine(work.scenario, turn, draft, judge_items) for turn, draft in drafts.items()}
    problems = [f"turn {turn}: {problem}" for turn, one in sorted(examined.items()) for problem in one.problems]
    if problems:
        raise AnswerRefused("these checklists cannot be used:\n  " + "\n  ".join(problems))
    return await store_examined(log, work, examined, {}, author=person, prompt_hash="", answers=1, cost=Cost())


def _figures(turns: Sequence[Examined], cost: Cost) -> dict[str, Any]:
    settled = [one for turn in turns for one in turn.settled]
    bad = [problem for turn in turns for problem in turn.bad_proposals]
    dropped = [
        f"turn {turn.turn}, {one.item.id}: {one.dropped}" for turn in turns for one in turn.settled if one.dropped
    ]
    checks = {
        "proposed": sum(one.proposed for one in settled) + len(bad),
        "derived": sum(one.derived for one in settled),
        "kept": sum(one.item.check is not None for one in settled),
        "dropped": dropped + bad,
    }
    tests = [test for turn in turns for test in turn.tests]
    items = [item for turn in turns for item in turn.items]
    without_test = sum(len(turn.items) for turn in turns if not turn.tests)
    self_test = figures_of(tests)
    return {
        "items": len(items),
        "undecided": self_test["undecided"] + without_test,
        "with_check": sum(item.check is not None for item in items),
        "self_test": self_test,
        "checks": checks,
        "cost": asdict(cost),
    }
