"""Writes the checklists of one dialogue with an annotator LLM (CM2 pipeline, step 4).

One call a dialogue where it fits, otherwise one a turn. What is unsound goes back with the reasons in the same
conversation; what is never repaired is handed to a person, and nothing of the dialogue is stored. Writes model calls;
`reward.examination` judges and stores what was written. The prompt is `prompts/annotate.md`, addressed by the SHA-256
of its text.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openai.types.chat import ChatCompletionMessageParam

from agent.role_endpoint import CHARACTERS_PER_TOKEN, RoleEndpoint, Said, Subject
from agent.role_work import read_prompt
from reward.annotation_form import answer_format, read_answer, show_dialogue, show_problems, show_task
from reward.examination import Annotated, Cost, Examined, Work, examine, is_trusted, store_examined
from reward.self_test import JudgeItems
from store.annotations import Annotation
from store.database import Log
from store.records import Scenario
from store.settings import AnnotationSettings

PROMPT_FILE = Path(__file__).parent / "prompts" / "annotate.md"
RETRY_TOKENS = 1000
"""Room that is kept for an answer and its reasons going back; less in a small context window."""
_LONGEST: tuple[int | None, ...] = (None, 4000, 1500, 600, 200)
"""Characters of one message that are shown at most, in the order in which they are tried."""


@dataclass(frozen=True)
class Plan:
    """How a dialogue is asked about: the turns of each call, and how long a message may be (None: as long as it is)."""

    dialogue: str
    calls: tuple[tuple[int, ...], ...]


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
        self.judge_items = judge_items
        self._prompt = read_prompt(settings.prompt, PROMPT_FILE, "annotation.prompt")
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
        accepted: dict[int, Examined] = {}
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
        return await store_examined(
            self._log,
            work,
            accepted,
            problems,
            author=self.name,
            prompt_hash=self.prompt_hash,
            answers=answers,
            cost=cost,
        )

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


class _Conversation:
    """Questions about the same turns, each after the first one with what was wrong with the answer before."""

    def __init__(self, annotator: Annotator, work: Work, turns: Sequence[int], dialogue: str) -> None:
        self.accepted: dict[int, Examined] = {}
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
        tools = {tool.name: tool for tool in self._work.scenario.tools}
        problems: dict[int, list[str]] = {}
        for _ in range(self._annotator.attempts):
            said = await self._annotator.ask(self._messages, self._work, self._turns)
            self.answers += 1
            cost.add(said)
            problems = {}
            for turn, draft in read_answer(said.text, self._turns, tools).items():
                if said.truncated and draft.problems:
                    draft.problems = [f"the answer was cut off after {said.completion_tokens} tokens: write less"]
                examined = await examine(self._work.scenario, turn, draft, self._annotator.judge_items)
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


def _task(scenario: Scenario, turns: Sequence[int]) -> str:
    return show_task(turns, [turn for turn in turns if not is_trusted(scenario, turn)])


def _tokens(*texts: str) -> int:
    return int(sum(map(len, texts)) / CHARACTERS_PER_TOKEN) + 8
