"""Writes the checklists of one dialogue with an annotator LLM: asks, validates, tests, stores.

One call a dialogue where it fits, otherwise one a turn. What is unsound goes back with the reasons in the same
conversation; what is never repaired is handed to a person, and nothing of the dialogue is stored. Writes model calls,
and an annotation with its checklists in one transaction. The prompt is `prompts/annotate.md`, addressed by the SHA-256
of its text.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletionMessageParam

from agent.role_endpoint import CHARACTERS_PER_TOKEN, RoleEndpoint, Said, Subject
from env_sim.chat_worlds import CHAT_SOURCE
from env_sim.recordings import played_reference
from reward.annotation_form import TurnDraft, answer_format, read_answer, show_dialogue, show_problems, show_task
from reward.annotation_rules import problems_of, spoken_text, with_scaled_weights
from reward.checklist_proposals import Settled, settle_check
from reward.self_test import ItemTest, JudgeItems, figures_of, run_self_test, run_self_test_with
from store.annotations import Annotation, record_annotation
from store.checklists import Checklist, without_item
from store.database import Log
from store.records import Item, Scenario
from store.settings import AnnotationSettings, SettingsError
from store.vocabulary import AnnotationStatus, Outcome

PROMPT_FILE = Path(__file__).parent / "prompts" / "annotate.md"
RETRY_TOKENS = 1000
"""Room that is kept for an answer and its reasons going back; less in a small context window."""
_LONGEST: tuple[int | None, ...] = (None, 4000, 1500, 600, 200)
"""Characters of one message that are shown at most, in the order in which they are tried."""


@dataclass(frozen=True)
class Work:
    """A variant of a scenario's checklists that is to be written, and for which turns."""

    scenario: Scenario
    variant: int
    turns: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a dialogue is asked about: the turns of each call, and how long a message may be (None: as long as it is)."""

    dialogue: str
    calls: tuple[tuple[int, ...], ...]


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


class Annotator:
    """Writes the checklists of one dialogue at a time; `endpoint` bounds how many questions are open."""

    def __init__(
        self,
        log: Log,
        endpoint: RoleEndpoint,
        settings: AnnotationSettings,
        *,
        seed: int = 0,
        judge_items: JudgeItems | None = None,
    ) -> None:
        self.name = endpoint.name
        self.is_greedy = endpoint.settings.temperature == 0
        self._log = log
        self._endpoint = endpoint
        self._settings = settings
        self._seed = seed
        self._judge_items = judge_items
        self._prompt = _read_prompt(settings.prompt)
        self.prompt_hash = hashlib.sha256(self._prompt.encode()).hexdigest()
        # One for all dialogues of the process: what is shown stays the same text, and the endpoint's cache holds.
        self._boundary = secrets.token_hex(8)

    def wrote(self, annotation: Annotation) -> bool:
        return (annotation.annotator, annotation.prompt_hash) == (self.name, self.prompt_hash)

    def plan(self, work: Work) -> Plan | None:
        """The fewest calls that fit into the context window, with as much of long messages as fits; None if none do."""
        for longest in _LONGEST:
            dialogue = show_dialogue(work.scenario, self._boundary, longest)
            room = self._settings.context_tokens - _tokens(self._prompt, dialogue, _task(work.scenario, work.turns))
            room -= self._retry_tokens
            if self._settings.calls == "auto" and room >= self._settings.turn_tokens * len(work.turns):
                return Plan(dialogue, (work.turns,))
            if room >= self._settings.turn_tokens:
                return Plan(dialogue, tuple((turn,) for turn in work.turns))
        return None

    def estimate(self, work: Work) -> Cost:
        """At most so much, if nothing has to be written again."""
        plan = self.plan(work)
        if plan is None:
            return Cost()
        prompt = _tokens(self._prompt, plan.dialogue, _task(work.scenario, work.turns))
        return Cost(
            calls=len(plan.calls),
            prompt_tokens=prompt * len(plan.calls),
            completion_tokens=self._settings.turn_tokens * len(work.turns),
        )

    async def annotate(self, work: Work, cost: Cost) -> Annotated:
        """Writes and stores; adds to `cost` as answers come.

        Raises EndpointError or LimitReached, with nothing stored, where no answer is to be had.
        """
        answers = 0
        accepted: dict[int, _Accepted] = {}
        problems: dict[int, list[str]] = {}
        plan = self.plan(work)
        if plan is None:
            too_long = f"the dialogue does not fit into annotation.context_tokens = {self._settings.context_tokens}"
            problems = {work.turns[0]: [too_long]}
        for turns in plan.calls if plan is not None else ():
            conversation = _Conversation(self, work, turns, plan.dialogue if plan is not None else "")
            problems = await conversation.run(cost)
            accepted |= conversation.accepted
            answers += conversation.answers
            if problems:  # nothing of the dialogue will be stored: no need to pay for the rest
                break
        said = tuple(f"turn {turn}: {problem}" for turn, of in sorted(problems.items()) for problem in of)
        left_out = tuple(chain.from_iterable(accepted[turn].left_out for turn in sorted(accepted)))
        annotation = Annotation(
            scenario_hash=work.scenario.hash,
            variant=work.variant,
            annotator=self.name,
            prompt_hash=self.prompt_hash,
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
                author=self.name,
                prompt_hash=self.prompt_hash,
                reason="written by the annotator",
            )
            for turn in sorted(accepted)
            if not problems
        ]
        await asyncio.to_thread(record_annotation, self._log, annotation, checklists)
        return Annotated(work, annotation.status, annotation.problems, cost, annotation.figures)

    async def ask(self, messages: Sequence[ChatCompletionMessageParam], work: Work, turns: Sequence[int]) -> Said:
        """One question about `turns`; another seed for each variant, turn and place in the conversation."""
        key = json.dumps([self._seed, work.scenario.hash, work.variant, list(turns), len(messages)])
        return await self._endpoint.ask(
            messages,
            max_tokens=self._settings.turn_tokens * len(turns),
            response_format=answer_format(turns),
            seed=int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1,
            subject=Subject(
                prompt_hash=self.prompt_hash,
                scenario_hash=work.scenario.hash,
                turn_index=turns[0] if len(turns) == 1 else None,
            ),
        )

    async def examine(self, scenario: Scenario, turn: int, draft: TurnDraft) -> "_Accepted":
        """The turn's checklist as it can be stored, or the reasons why it cannot."""
        spoken = scenario.turns[turn]
        reference = played_reference(spoken, turn)
        trusted = is_trusted(scenario, turn)
        tools = {tool.name: tool for tool in scenario.tools}
        settled = [settle_check(one.item, one.proposal, reference, tools) for one in draft.drafts]
        bad = [f"turn {turn}, {one.item.id}: {one.bad_proposal}" for one in draft.drafts if one.bad_proposal]
        items: tuple[Item, ...] = tuple(one.item for one in settled)
        problems = [*draft.problems, *problems_of(items, reference, spoken_text(scenario, turn), trusted)]
        if problems:
            return _Accepted(turn, problems=problems)
        items = with_scaled_weights(items)
        tests = await self._tests(scenario, turn, items) if reference.steps else []
        failing = [test.key for test in tests if trusted and test.on_reference is Outcome.FAIL]
        if len(failing) == len(items):
            return _Accepted(turn, problems=[f"the reference fails every item: {', '.join(failing)}"])
        for key in failing:
            items = without_item(items, key)
        left_out = [f"turn {turn}, item {key!r} is left out: the reference fails it" for key in failing]
        return _Accepted(turn, items, settled, bad, tests, left_out)

    async def _tests(self, scenario: Scenario, turn: int, items: Sequence[Item]) -> list[ItemTest]:
        reference = played_reference(scenario.turns[turn], turn)
        if self._judge_items is None:
            return run_self_test(items, reference)
        earlier = [played_reference(scenario.turns[before], before) for before in range(turn)]
        return await run_self_test_with(items, reference, earlier, self._judge_items)

    @property
    def first_message(self) -> ChatCompletionMessageParam:
        return {"role": "system", "content": self._prompt}

    @property
    def attempts(self) -> int:
        """Answers at most: the first one, and one for each time it goes back."""
        return 1 + self._settings.attempts

    @property
    def _retry_tokens(self) -> int:
        return min(RETRY_TOKENS, self._settings.context_tokens // 8)

    def room_for_retry(self, messages: Sequence[ChatCompletionMessageParam], turns: Sequence[int]) -> int:
        """Characters that may still be added to a conversation before `turns` are asked for again."""
        used = _tokens(*(str(message.get("content", "")) for message in messages))
        room = self._settings.context_tokens - self._settings.turn_tokens * len(turns) - used
        return max(0, int(room * CHARACTERS_PER_TOKEN))


@dataclass
class _Accepted:
    """A turn's checklist that may be stored, with what is known of it; or `problems`."""

    turn: int
    items: tuple[Item, ...] = ()
    settled: Sequence[Settled] = ()
    bad_proposals: Sequence[str] = ()
    tests: Sequence[ItemTest] = ()
    left_out: Sequence[str] = ()
    problems: list[str] = field(default_factory=list)


class _Conversation:
    """Questions about the same turns, each after the first one with what was wrong with the answer before."""

    def __init__(self, annotator: Annotator, work: Work, turns: Sequence[int], dialogue: str) -> None:
        self.accepted: dict[int, _Accepted] = {}
        self.answers = 0
        self._annotator = annotator
        self._work = work
        self._turns = list(turns)
        question = f"{dialogue}\n\n{_task(work.scenario, turns)}"
        self._messages: list[ChatCompletionMessageParam] = [
            annotator.first_message,
            {"role": "user", "content": question},
        ]

    async def run(self, cost: Cost) -> dict[int, list[str]]:
        """Why turns are still unsound after the last answer; empty if all are accepted."""
        scenario, tools = self._work.scenario, {tool.name: tool for tool in self._work.scenario.tools}
        problems: dict[int, list[str]] = {}
        for _ in range(self._annotator.attempts):
            said = await self._annotator.ask(self._messages, self._work, self._turns)
            self.answers += 1
            cost.add(said)
            problems = {}
            for turn, draft in read_answer(said.text, self._turns, tools).items():
                if said.truncated and draft.problems:
                    draft.problems = [f"the answer was cut off after {said.completion_tokens} tokens: write less"]
                examined = await self._annotator.examine(scenario, turn, draft)
                if examined.problems:
                    problems[turn] = examined.problems
                else:
                    self.accepted[turn] = examined
            if not problems:
                break
            self._turns = list(problems)
            self._go_back(said.text, show_problems(problems))
        return problems

    def _go_back(self, answer: str, reasons: str) -> None:
        """Adds the answer and the reasons; where room is short older ones go, and long ones are cut."""
        while (room := self._annotator.room_for_retry(self._messages, self._turns)) < len(answer) + len(reasons):
            if len(self._messages) == 2:
                reasons = reasons[: max(room // 2, 200)]
                answer = answer[: max(room - len(reasons), 0)]
                break
            del self._messages[2:4]
        self._messages += [{"role": "assistant", "content": answer or "{}"}, {"role": "user", "content": reasons}]


def is_trusted(scenario: Scenario, turn: int) -> bool:
    """Whether the turn's reference proves what is right: not in a chat, where it is what the policy did."""
    return scenario.source != CHAT_SOURCE and bool(scenario.turns[turn].reference)


def _task(scenario: Scenario, turns: Sequence[int]) -> str:
    return show_task(turns, [turn for turn in turns if not is_trusted(scenario, turn)])


def _figures(turns: Sequence[_Accepted], cost: Cost) -> dict[str, Any]:
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
    return {"self_test": figures_of(tests), "checks": checks, "cost": asdict(cost)}


def _read_prompt(file: Path | None) -> str:
    try:
        return (file or PROMPT_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read the prompt {file} (annotation.prompt): {error.strerror or error}") from error


def _tokens(*texts: str) -> int:
    return int(sum(map(len, texts)) / CHARACTERS_PER_TOKEN) + 8
