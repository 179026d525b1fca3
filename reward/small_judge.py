"""Judges with a small model, one short question an item: what distilled judges are trained on and asked (train/distil).

Reads `prompts/judge_small.md` (addressed by the SHA-256 of its text); writes nothing but the calls that its endpoint
records. The training text is made by the same functions as the question, so a distilled judge is asked exactly what it
learnt. Shown are the turn's user message, calls, responses and reply; thinking only where the item looks at it; of
earlier turns what was said. Evidence is checked by code as for any judge: a PASS whose quote is not there is UNSCORED.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import Literal

from openai.types.shared_params import ResponseFormatJSONSchema
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.role_errors import EndpointError, LimitReached
from reward.checks import has_reply, quote_call, succeeded
from reward.evidence import find_evidence
from reward.guided_json import json_format
from reward.llm_judge import (
    Answers,
    Dialogue,
    LlmJudge,
    LlmVerdict,
    decide_forbidden,
    explain,
    unscored,
)
from reward.transcripts import make_boundary, shorten, strip_tags
from store.records import Item, StepRecord, TurnRecord
from store.vocabulary import FocusOn, Outcome

PROMPT_FILE = Path(__file__).parent / "prompts" / "judge_small.md"
RULES = PROMPT_FILE.read_text(encoding="utf-8")
PROMPT_HASH = hashlib.sha256(RULES.encode()).hexdigest()

QUOTE_CHARACTERS = 160
"""Of a passage to learn from. The grammar has no limit: xgrammar forbids escapes in strings of bounded length, and
every quoted call has some."""
ANSWER_TOKENS = 160
"""A quote without end is cut off here, which is no answer."""
EARLIER_TURNS = 2
"""Of the turns before the judged one, so many are shown."""
BOUNDARY_LETTERS = 4
"""Enough that no text of the turn looks like a tag by chance; a forged tag is removed whatever its boundary."""
NO_REASON = "a small judge gives no reason but its quote"

CHANNELS = {
    FocusOn.TOOL_CALLS: "call",
    FocusOn.TOOL_RESPONSE: "response",
    FocusOn.THINKING: "thinking",
    FocusOn.REPLY: "reply",
}
"""Short names of the channels, in tags and items."""


_PROPERTIES: dict[str, object] = {
    "quote": {"type": "string"},
    "step": {"type": "integer"},
    "verdict": {"type": "string", "enum": ["PASS", "FAIL"]},
}


class SmallAnswer(BaseModel):
    """What the model answers."""

    model_config = ConfigDict(extra="forbid")

    quote: str
    step: int
    verdict: Literal["PASS", "FAIL"]


async def ask_small(llm: LlmJudge, dialogue: Dialogue, item: Item, draw: int = 0) -> Answers:
    """The verdict on one item of the dialogue's turn; none if a limit kept it from being asked.

    A PASS without its quote is not asked again: a small judge learnt one question, and would answer the same to it.
    """
    boundary = make_boundary(dialogue.scenario_hash)[:BOUNDARY_LETTERS]
    try:
        async with llm.written:
            question = small_question(dialogue.turn, item, dialogue.earlier, boundary, llm.prompt)
            said = await llm.send(
                [{"role": "user", "content": question}], dialogue, small_answer_format(), ANSWER_TOKENS, 1, draw
            )
    except LimitReached as limit:
        return Answers([], str(limit))
    except EndpointError as error:
        return Answers(unscored([item], str(error)))
    return Answers([read_answer(said.text, dialogue.turn, item)])


def draw_boundary(random: Random) -> str:
    """What a tag of data carries where it is learnt from, drawn anew for every turn."""
    return "".join(random.choices(ascii_lowercase, k=BOUNDARY_LETTERS))


def small_question(
    turn: TurnRecord, item: Item, earlier: Sequence[TurnRecord], boundary: str, rules: str = RULES
) -> str:
    """The one user message: rules, turn, then the item, so that the items of a turn share all but their end.

    There is no system message: some chat templates know none.
    """
    return f"{rules}\n{show_context(turn, item.focus_on, earlier, boundary)}\n\n{show_item(item)}"


def show_context(turn: TurnRecord, channel: FocusOn, earlier: Sequence[TurnRecord], boundary: str) -> str:
    """What happened, one block of data a line; `channel` decides whether thinking is shown."""
    lines = []
    for before in list(earlier)[-EARLIER_TURNS:]:
        lines += [_block(boundary, "earlier user", before.user), _block(boundary, "earlier reply", before.reply)]
    lines.append(_block(boundary, "user", turn.user))
    for step in turn.steps:
        lines += [_block(boundary, label, text) for label, text in _pieces(turn, step, channel)]
    return "\n".join(lines)


def show_item(item: Item) -> str:
    lines = [f"Item ({CHANNELS[item.focus_on]}): {item.question}"]
    if item.pass_condition:
        lines.append(f"PASS: {item.pass_condition}")
    if item.failure_examples:
        lines.append(f"FAIL: {'; '.join(item.failure_examples)}")
    if item.forbids:
        lines.append("MUST NOT: PASS, quoting nothing, if it never happens; FAIL quotes where it does.")
    return strip_tags("\n".join(lines))


def small_answer(quote: str, step: int, verdict: Outcome) -> str:
    """The answer as a guided server spells it. Raises ValueError for UNSCORED, which is no answer."""
    if verdict is Outcome.UNSCORED:
        raise ValueError("UNSCORED is no verdict to learn")
    return json.dumps({"quote": quote, "step": step, "verdict": verdict.value}, ensure_ascii=False)


def small_answer_format() -> ResponseFormatJSONSchema:
    """The guided JSON: the quote before the verdict, so that the verdict follows from it."""
    return json_format("verdict", _PROPERTIES)


def answer_schema() -> dict[str, object]:
    return dict(small_answer_format()["json_schema"].get("schema", {}))


def read_answer(text: str, turn: TurnRecord, item: Item) -> LlmVerdict:
    """What an answer says of the item; UNSCORED, with the reason, where it is no answer or a PASS without evidence."""
    try:
        answer = SmallAnswer.model_validate_json(text)
    except ValidationError as error:
        return unscored([item], explain(error))[0]
    if item.forbids:
        return decide_forbidden(item, turn, Outcome(answer.verdict), answer.step, answer.quote, NO_REASON)
    if answer.verdict == "FAIL":
        return LlmVerdict(item.id, Outcome.FAIL, None, f"it quotes {answer.quote!r}" if answer.quote else NO_REASON)
    evidence = find_evidence(turn, item.focus_on, answer.step, answer.quote)
    if evidence is None:
        place = f"step {answer.step}, {item.focus_on.value}"
        reason = f"the judge said PASS, but its quote {answer.quote[:80]!r} does not occur in {place}"
        return LlmVerdict(item.id, Outcome.UNSCORED, None, reason)
    return LlmVerdict(item.id, Outcome.PASS, answer.step, NO_REASON, evidence)


def _pieces(turn: TurnRecord, step: StepRecord, channel: FocusOn) -> list[tuple[str, str]]:
    """Label and text of each block of a step, in the order in which it happened."""
    pieces = []
    if step.thinking and channel is FocusOn.THINKING:
        pieces.append((f"{step.index} thinking", step.thinking))
    if step.content:
        said = "reply" if step is turn.steps[-1] and has_reply(turn) else "text"
        pieces.append((f"{step.index} {said}", step.content))
    for call in step.calls:
        pieces.append((f"{step.index} call{'' if succeeded(call) else ' failed'}", quote_call(call)))
        if call.response is not None:
            pieces.append((f"{step.index} response{'' if succeeded(call) else ' failed'}", call.response))
    return pieces


def _block(boundary: str, label: str, text: str) -> str:
    return f"<data-{boundary} {label}>{shorten(strip_tags(text))}</data-{boundary}>"
