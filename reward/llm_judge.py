"""One question to an LLM judge and what its answer means: items about the last turn of a dialogue, in one call.

Rules first, then the dialogue, the items last, so that servers with a prefix cache compute a dialogue once. What the
policy, tools and users wrote stands behind a secret boundary (reward/transcripts.py). A PASS whose quote does not occur
where it says is asked again once in the same conversation, then it is UNSCORED; of an item that forbids something it is
the FAIL that needs a quote. Trouble of any kind is UNSCORED with its reason, never FAIL (invariant 3). Reads a prompt
file, addressed by the SHA-256 of its text.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from agent.role_endpoint import RoleEndpoint, Said, Subject
from agent.role_errors import EndpointError, LimitReached
from reward.evidence import find_evidence, find_forbidden, hidden_part, speaks_to_a_judge
from reward.guided_json import SaidTwice, closed_object, json_format, refuse_twice
from reward.transcripts import make_boundary, show_turns, strip_tags
from store.records import Item, TurnRecord
from store.vocabulary import JudgeMode, Outcome

PROMPTS = Path(__file__).parent / "prompts"
PROMPT_FILE = PROMPTS / "judge_turn.md"
AGAIN_FILE = PROMPTS / "judge_again.md"
TOKENS_PER_ITEM, TOKENS_BESIDE = 200, 100
"""Room for one item's answer, and for what stands around all of them."""
_WRITTEN_AHEAD = 2
"""Questions that are written for each that the endpoint answers at once, so that it never waits for one."""


@dataclass(frozen=True)
class Dialogue:
    """A turn to judge, and what came before it."""

    turn: TurnRecord
    earlier: tuple[TurnRecord, ...] = ()
    scenario_hash: str = ""


@dataclass(frozen=True)
class LlmVerdict:
    """What the LLM judge says about one item; `step_index` and a verified `quote` only with PASS.

    An item that forbids something passes from the turn's last step on, without a quote; a FAIL has one.
    """

    key: str
    outcome: Outcome
    step_index: int | None
    reason: str
    quote: str = ""
    asked: bool = True
    """False where no question was needed."""
    by_rule: bool = False
    """Nor does it say anything of the judge: what it depends on fails, or the turn has nothing to look at."""


@dataclass(frozen=True)
class Answers:
    """Verdicts on the items that were asked about, in their order."""

    verdicts: list[LlmVerdict]
    stopped: str | None = None
    """Which limit was reached; items without a verdict were then not asked about."""


class _Answer(BaseModel):
    """What is said about one item."""

    reason: str
    quote: str
    step: int
    verdict: Literal["PASS", "FAIL"]


class _WholeAnswer(BaseModel):
    verdicts: dict[str, _Answer]


class LlmJudge:
    """Judges through `endpoint` with the prompt of `mode`, or with that of another file."""

    def __init__(self, endpoint: RoleEndpoint, mode: JudgeMode = JudgeMode.TURN, prompt: Path | None = None) -> None:
        self.endpoint = endpoint
        self.mode = mode
        self.name = endpoint.name
        self.prompt = (prompt or PROMPTS / f"judge_{mode.value}.md").read_text(encoding="utf-8")
        self._again = AGAIN_FILE.read_text(encoding="utf-8")
        said = self.prompt if mode in (JudgeMode.PAPER, JudgeMode.SMALL) else f"{self.prompt}\0{self._again}"
        self.prompt_hash = hashlib.sha256(said.encode()).hexdigest()
        """Of all that it is told; CM2's procedure asks nothing again."""
        self.written = asyncio.Semaphore(_WRITTEN_AHEAD * endpoint.settings.max_concurrency)
        """Held by a question from before it is written: what waits for the endpoint must not take a prompt's room."""

    async def ask(self, dialogue: Dialogue, items: Sequence[Item], draw: int = 0) -> Answers:
        """One verdict for every item, decided on the dialogue's turn; none for those that a limit kept from being
        asked again. Never raises for trouble of the endpoint: the items are then UNSCORED and say why."""
        async with self.written:
            return await self._ask_twice(dialogue, items, draw)

    async def _ask_twice(self, dialogue: Dialogue, items: Sequence[Item], draw: int) -> Answers:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self.prompt},
            {"role": "user", "content": self.question(dialogue, items)},
        ]
        try:
            said = await self._ask(messages, dialogue, items, draw)
        except LimitReached as limit:
            return Answers([], str(limit))
        except EndpointError as error:
            return Answers(unscored(items, str(error)))
        verdicts, unproven = _read(said, items, dialogue.turn)
        if not unproven:
            return Answers(verdicts)
        asked_again = [item for item in items if item.id in unproven]
        messages += [
            # Only what is asked again: a server would have to compute the rest of its answer as a prompt.
            {"role": "assistant", "content": strip_tags(_WholeAnswer(verdicts=unproven).model_dump_json())},
            {"role": "user", "content": f"{self._again}\n" + "\n".join(map(_name_item, asked_again))},
        ]
        stopped = None
        try:
            said = await self._ask(messages, dialogue, asked_again, draw)
        except LimitReached as limit:
            second, stopped = {}, str(limit)
        except EndpointError as error:
            second = {verdict.key: verdict for verdict in unscored(asked_again, str(error))}
        else:
            second = {verdict.key: verdict for verdict in _read(said, asked_again, dialogue.turn)[0]}
        settled = [second.get(v.key) if v.key in unproven else v for v in verdicts]
        return Answers([verdict for verdict in settled if verdict is not None], stopped)

    def question(self, dialogue: Dialogue, items: Sequence[Item]) -> str:
        """The user message: the dialogue, then the items."""
        shown = show_turns([*dialogue.earlier, dialogue.turn], make_boundary(dialogue.scenario_hash))
        where = f"turn {dialogue.turn.index}"
        if self.mode is JudgeMode.STEP:
            where += ", which is over" if dialogue.turn.complete else ", which is not over"
        return f"# Dialogue\n\n{shown}\n\n# Items about {where}\n\n{show_items(items)}"

    async def _ask(
        self, messages: Sequence[ChatCompletionMessageParam], dialogue: Dialogue, items: Sequence[Item], draw: int
    ) -> Said:
        room = TOKENS_PER_ITEM * len(items) + TOKENS_BESIDE
        wanted = answer_format(items, [step.index for step in dialogue.turn.steps])
        said = await self.send(messages, dialogue, wanted, room, len(items), draw)
        # Reasons and quotes are stored and shown; the boundary stays a secret of this process.
        return replace(said, text=said.text.replace(make_boundary(dialogue.scenario_hash), ""))

    async def send(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        dialogue: Dialogue,
        response_format: ResponseFormatJSONSchema,
        max_tokens: int,
        items: int,
        draw: int,
    ) -> Said:
        """One call, for which the log gets a row. Raises EndpointError and LimitReached."""
        subject = Subject(
            prompt_hash=self.prompt_hash,
            scenario_hash=dialogue.scenario_hash or None,
            trajectory_id=dialogue.turn.trajectory_id,
            turn_index=dialogue.turn.index,
            items=items,
        )
        return await self.endpoint.ask(
            messages,
            max_tokens=max_tokens,
            response_format=response_format,
            seed=draw if self.endpoint.settings.temperature > 0 else None,
            subject=subject,
        )


def show_items(items: Sequence[Item]) -> str:
    """An item a paragraph: key and channel, the question, when it passes and what fails it."""
    return "\n\n".join(_show_item(item) for item in items)


def _name_item(item: Item) -> str:
    """How an item begins: what it asks stands in the question before."""
    return f"[{item.id}] about {item.focus_on.value}{', must not' if item.forbids else ''}"


def _show_item(item: Item) -> str:
    lines = [f"{_name_item(item)}: {_one_line(item.question)}"]
    if item.pass_condition:
        lines.append(f"PASS if: {_one_line(item.pass_condition)}")
    if item.failure_examples:
        lines.append("FAIL for example if: " + "; ".join(map(_one_line, item.failure_examples)))
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(strip_tags(text).split())


def answer_format(items: Sequence[Item], steps: Sequence[int]) -> ResponseFormatJSONSchema:
    """The guided JSON: an entry under each item's id, so that none is left out or decided twice; in it reason and quote
    before the verdict, so that the verdict follows from them.

    `steps` are the turn's: none can be named but them and -1, which stands for none.
    """
    of_an_item = closed_object(
        {
            "reason": {"type": "string"},
            "quote": {"type": "string"},
            "step": {"type": "integer", "enum": [-1, *steps]},
            "verdict": {"type": "string", "enum": ["PASS", "FAIL"]},
        }
    )
    return json_format("verdicts", {"verdicts": closed_object({item.id: of_an_item for item in items})})


def unscored(items: Sequence[Item], reason: str) -> list[LlmVerdict]:
    return [LlmVerdict(item.id, Outcome.UNSCORED, None, reason[:500]) for item in items]


def explain(error: ValidationError) -> str:
    """Why an answer is not what was asked for, with the place."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the answer"
    return f"the judge's answer is not what was asked for: {where}: {problem['msg']}"


def decide_forbidden(
    item: Item, turn: TurnRecord, said: Outcome, step_index: int, quote: str, reason: str
) -> LlmVerdict:
    """The verdict on an item that forbids something: absence has nothing to quote, what happened has."""
    if said is Outcome.PASS:
        if (hidden := hidden_part(item.focus_on, turn)) is not None:
            return unscored([item], f"{hidden}; the judge said PASS: {reason}")[0]
        return LlmVerdict(item.id, Outcome.PASS, turn.steps[-1].index, reason)
    found = find_forbidden(turn, item.focus_on, step_index, quote)
    if found is None:
        place = f"step {step_index}, {item.focus_on.value}"
        why = f"the judge's quote {quote[:80]!r} does not occur in {place}; it said FAIL: {reason}"
        return LlmVerdict(item.id, Outcome.UNSCORED, None, why)
    return LlmVerdict(item.id, Outcome.FAIL, None, reason, found)


def _read(said: Said, items: Sequence[Item], turn: TurnRecord) -> tuple[list[LlmVerdict], dict[str, _Answer]]:
    """The verdict on each item, and what was said of those of which the verdict lacks the evidence that it needs."""
    try:
        answers = _whole_answers(said)
    except ValidationError as error:
        return unscored(items, explain(error)), {}
    except SaidTwice as error:
        return unscored(items, f"the judge's answer is not what was asked for: {error} stands there twice"), {}
    lacking = "the judge gave no verdict on this item"
    if said.truncated:
        lacking = "the judge's answer was cut off before it came to this item"
    verdicts, unproven = [], {}
    for item in items:
        if (answer := answers.get(item.id)) is None:
            verdicts += unscored([item], lacking)
            continue
        verdict, lacks_evidence = _decide(item, answer, turn)
        verdicts.append(verdict)
        if lacks_evidence:
            unproven[item.id] = answer
    return verdicts, unproven


def _whole_answers(said: Said) -> dict[str, _Answer]:
    """By item; of an answer that was cut off, the entries that are whole. Raises ValidationError and SaidTwice."""
    if not said.truncated:
        answers = _WholeAnswer.model_validate_json(said.text).verdicts
        json.loads(said.text, object_pairs_hook=refuse_twice)
        return answers
    try:
        entries = from_json(said.text, allow_partial=True)["verdicts"]
    except (ValueError, KeyError, TypeError):
        return {}
    whole = {}
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        with suppress(ValidationError):
            whole[key] = _Answer.model_validate(entry)
    return whole


def _decide(item: Item, answer: _Answer, turn: TurnRecord) -> tuple[LlmVerdict, bool]:
    """The verdict, and whether it lacks evidence: a PASS, or the FAIL of an item that forbids something."""
    if item.forbids:
        verdict = decide_forbidden(item, turn, Outcome(answer.verdict), answer.step, answer.quote, answer.reason)
        return verdict, answer.verdict == "FAIL" and verdict.outcome is Outcome.UNSCORED
    if answer.verdict == "FAIL":
        return LlmVerdict(item.id, Outcome.FAIL, None, answer.reason), False
    evidence = find_evidence(turn, item.focus_on, answer.step, answer.quote)
    if evidence is None:
        place = f"step {answer.step}, {item.focus_on.value}"
        lacks = "speaks to a judge" if speaks_to_a_judge(answer.quote) else f"does not occur in {place}"
        reason = f"the judge's quote {answer.quote[:80]!r} {lacks}; it said PASS: {answer.reason}"
        return LlmVerdict(item.id, Outcome.UNSCORED, None, reason), True
    return LlmVerdict(item.id, Outcome.PASS, answer.step, answer.reason, evidence), False
