"""Judges a turn's items with an LLM behind any OpenAI-compatible endpoint: one call a turn for all pending items.

Reads `prompts/judge_turn.md` (addressed by the SHA-256 of its text); writes nothing. Context first, items last. What
the policy, tools and users wrote is untrusted data between tags with a boundary that is drawn anew for every call, so
that no text can close its own block. Trouble of any kind, and a PASS without evidence, become UNSCORED with the reason,
never FAIL (invariant 3).
"""

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openai
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema
from pydantic import BaseModel, Field, ValidationError

from reward.checks import has_reply, quote_call, succeeded
from reward.mentions import find_mention, tokenize
from store.records import CallRecord, Item, StepRecord, TurnRecord
from store.settings import Endpoint
from store.vocabulary import FocusOn, Outcome

PROMPT_FILE = Path(__file__).parent / "prompts" / "judge_turn.md"
TOKENS_PER_ITEM = 200
"""Room for one item's answer."""

_TAG = re.compile(r"<\s*/?\s*data-[^<>]*>?", re.IGNORECASE)


@dataclass(frozen=True)
class LlmVerdict:
    """What the LLM judge says about one item; `step_index` and a verified `quote` only with PASS."""

    key: str
    outcome: Outcome
    step_index: int | None
    reason: str
    quote: str = ""


class _ItemAnswer(BaseModel):
    id: str
    reason: str
    quote: str
    step: int
    verdict: Literal["PASS", "FAIL"]


class _Answer(BaseModel):
    verdicts: list[_ItemAnswer]


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class LlmJudge:
    """Judges through `endpoint`; one object serves one event loop, with at most `max_concurrency` calls in flight.

    `timeout_s` is the deadline of a whole call, the one retry included; waiting for a free slot does not count.
    """

    def __init__(self, endpoint: Endpoint, *, client: openai.AsyncOpenAI | None = None) -> None:
        self.name = endpoint.model[:128]
        self._endpoint = endpoint
        self._client = client or openai.AsyncOpenAI(
            base_url=endpoint.base_url, api_key=endpoint.api_key, timeout=endpoint.timeout_s, max_retries=1
        )
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)
        self._prompt = PROMPT_FILE.read_text(encoding="utf-8")
        self.prompt_hash = hashlib.sha256(self._prompt.encode()).hexdigest()

    async def judge(
        self, turn: TurnRecord, items: Sequence[Item], earlier: Sequence[TurnRecord] = ()
    ) -> list[LlmVerdict]:
        """One verdict for every item, in order, decided on `turn` with the `earlier` turns as background.

        Never raises for trouble of the endpoint: the items are then UNSCORED and say why.
        """
        if not items:
            return []
        context = show_turns([*earlier, turn], secrets.token_hex(8))
        try:
            async with self._slots, asyncio.timeout(self._endpoint.timeout_s):
                said = await self._ask(context, items)
            answers = _Answer.model_validate_json(said).verdicts
        except TimeoutError:
            return _unscored(items, f"the judge did not answer within {self._endpoint.timeout_s:g} s")
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the answer"
            return _unscored(items, f"the judge's answer is not what was asked for: {where}: {problem['msg']}")
        except openai.OpenAIError as error:
            return _unscored(items, f"the judge failed: {type(error).__name__}: {error}")
        by_id: dict[str, list[_ItemAnswer]] = {}
        for answer in answers:
            by_id.setdefault(answer.id, []).append(answer)
        return [_verdict(item, by_id.get(item.id, []), turn) for item in items]

    async def _ask(self, context: str, items: Sequence[Item]) -> str:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self._prompt},
            {"role": "user", "content": f"# Turn\n\n{context}\n\n# Items\n\n{show_items(items)}"},
        ]
        # Raw: a proxy's page or an error with status 200 is no completion, and the client's types would not say so.
        response = await self._client.chat.completions.with_raw_response.create(
            model=self._endpoint.model,
            messages=messages,
            response_format=answer_format(items),
            max_tokens=TOKENS_PER_ITEM * (len(items) + 1),
            temperature=0.0,
        )
        return _Completion.model_validate_json(response.text).choices[0].message.content


def show_turns(turns: Sequence[TurnRecord], boundary: str) -> str:
    """The turns as blocks of data; the last one is the one to judge."""
    blocks = []
    for turn in turns:
        title = "## The turn to judge" if turn is turns[-1] else f"## Earlier turn {turn.index}"
        blocks.append(title)
        blocks.append(_block(boundary, 'channel="user"', turn.user))
        for step in turn.steps:
            blocks += [_block(boundary, attributes, text) for attributes, text in _pieces(turn, step)]
    return "\n\n".join(blocks)


def show_items(items: Sequence[Item]) -> str:
    shown = [
        {
            "id": item.id,
            "focus_on": item.focus_on.value,
            "question": item.question,
            "pass_condition": item.pass_condition,
            "failure_examples": list(item.failure_examples),
        }
        for item in items
    ]
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in shown)


def answer_format(items: Sequence[Item]) -> ResponseFormatJSONSchema:
    """The guided JSON: reason and quote before the verdict, so that the verdict follows from them."""
    properties = {
        "id": {"type": "string", "enum": [item.id for item in items]},
        "reason": {"type": "string"},
        "quote": {"type": "string"},
        "step": {"type": "integer"},
        "verdict": {"type": "string", "enum": ["PASS", "FAIL"]},
    }
    entry = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    array = {"type": "array", "items": entry, "minItems": len(items), "maxItems": len(items)}
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"verdicts": array},
        "required": ["verdicts"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdicts", "strict": True, "schema": schema}}


def find_evidence(turn: TurnRecord, channel: FocusOn, step_index: int, quote: str) -> str | None:
    """The literal piece of the step's channel that `quote` repeats, or None. Failed calls are no evidence."""
    if not tokenize(quote).spans:
        return None
    for step in turn.steps:
        if step.index == step_index:
            texts = [strip_tags(text) for text in _evidence_texts(turn, step, channel)]
            return next((found for text in texts if (found := find_mention(text, quote)) is not None), None)
    return None


def strip_tags(text: str) -> str:
    """The text without anything that looks like a tag of a data block."""
    return _TAG.sub("[removed]", text)


def _verdict(item: Item, answers: list[_ItemAnswer], turn: TurnRecord) -> LlmVerdict:
    if len(answers) != 1:
        many = "no verdict" if not answers else f"{len(answers)} verdicts"
        return LlmVerdict(item.id, Outcome.UNSCORED, None, f"the judge gave {many} on this item")
    answer = answers[0]
    if answer.verdict == "FAIL":
        return LlmVerdict(item.id, Outcome.FAIL, None, answer.reason)
    evidence = find_evidence(turn, item.focus_on, answer.step, answer.quote)
    if evidence is None:
        place = f"step {answer.step}, {item.focus_on.value}"
        reason = f"the judge's quote {answer.quote[:80]!r} does not occur in {place}; it said PASS: {answer.reason}"
        return LlmVerdict(item.id, Outcome.UNSCORED, None, reason)
    return LlmVerdict(item.id, Outcome.PASS, answer.step, answer.reason, evidence)


def _unscored(items: Sequence[Item], reason: str) -> list[LlmVerdict]:
    return [LlmVerdict(item.id, Outcome.UNSCORED, None, reason[:500]) for item in items]


def _block(boundary: str, attributes: str, text: str) -> str:
    clean = strip_tags(text).replace(boundary, "[removed]")
    return f"<data-{boundary} {attributes}>\n{clean}\n</data-{boundary}>"


def _pieces(turn: TurnRecord, step: StepRecord) -> list[tuple[str, str]]:
    """What a step shows: attributes of each block and its text, in the order in which it happened."""
    pieces = []
    if step.thinking:
        pieces.append((_attributes(step, FocusOn.THINKING), step.thinking))
    if step.content:
        is_reply = step.is_reply and step is turn.steps[-1]
        channel = FocusOn.REPLY.value if is_reply else "assistant_text"
        pieces.append((f'step="{step.index}" channel="{channel}"', step.content))
    for call in step.calls:
        pieces.append((_attributes(step, FocusOn.TOOL_CALLS, call), quote_call(call)))
    for call in step.calls:
        if call.response is not None:
            pieces.append((_attributes(step, FocusOn.TOOL_RESPONSE, call), call.response))
    return pieces


def _attributes(step: StepRecord, channel: FocusOn, call: CallRecord | None = None) -> str:
    status = "" if call is None else f' status="{"ok" if succeeded(call) else "failed"}"'
    return f'step="{step.index}" channel="{channel.value}"{status}'


def _evidence_texts(turn: TurnRecord, step: StepRecord, channel: FocusOn) -> list[str]:
    if channel is FocusOn.THINKING:
        return [step.thinking]
    if channel is FocusOn.REPLY:
        return [step.content] if has_reply(turn) and step is turn.steps[-1] else []
    done = [call for call in step.calls if succeeded(call)]
    if channel is FocusOn.TOOL_CALLS:
        return [quote_call(call) for call in done]
    return [call.response for call in done if call.response is not None]
