"""Damages a reference turn, so that a checklist can be tried on what it must refuse. Pure; reads and writes nothing.

A damage is made for one item, from what the item looks at, so that it concerns the item by construction: the calls that
it asks for are dropped, answered with an error or given another argument; a value that it names is replaced in the
reply; and so on (`Damage`).
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from reward.arguments import equal_values
from reward.checks import decide_check, quote_call, succeeded
from reward.mentions import find_mention, tokenize
from reward.response_fields import field, field_values, with_field
from store.records import (
    Called,
    CallOrder,
    CallRecord,
    Item,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ReplyRepeats,
    ResponseReceived,
    StepRecord,
    TurnRecord,
)
from store.vocabulary import FocusOn


class Damage(StrEnum):
    """How a reference is damaged."""

    DROPPED_CALL = "dropped_call"
    FAILED_CALL = "failed_call"
    WRONG_ARGUMENT = "wrong_argument"
    WRONG_RESPONSE = "wrong_response"
    REORDERED = "reordered"
    REPEATED_CALL = "repeated_call"
    FORBIDDEN_CALL = "forbidden_call"
    EMPTY_REPLY = "empty_reply"
    GENERIC_REPLY = "generic_reply"
    WRONG_VALUE = "wrong_value"
    """A value in the reply is another one than the tools gave: a hallucination."""
    NO_QUESTION = "no_question"
    FORBIDDEN_WORDS = "forbidden_words"
    NO_THINKING = "no_thinking"


@dataclass(frozen=True)
class Damaged:
    kind: Damage
    turn: TurnRecord


_COUNTS = re.compile(
    r"\b(?:exactly|only|just|at most|(?:no|not|never) more than)\s+"
    r"(?:once|twice|(?:one|two|three|four|five|\d+)\s+(?:\w+\s+){0,2}(?:calls?|times?))\b"
    r"|\ba\s+single\s+(?:\w+\s+){0,2}(?:call|time)\b|\bonce\b(?=\s*(?:[.,;?!]|$|and only))"
    r"|\b(?:not|never|without)\b[^.;?!]{0,40}\b(?:again|twice|repeat\w*|duplicat\w*)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Words of an item that one call too many fails.

"Exactly two seats" is about an argument, "once she agrees" about time.
"""
GENERIC = "Okay."
OTHER_WORD = "Quillmoor"
"""A made-up name, in place of a value without digits."""
_OTHER_DIGITS = str.maketrans("0123456789", "7891234564")
_ERROR = '{"error":"service unavailable"}'


def damages(item: Item, reference: TurnRecord) -> list[Damaged]:
    """Damaged references that must fail the item if it holds in the reference; each is another one."""
    if item.check is None:
        by_channel = {FocusOn.REPLY: _reply_damages, FocusOn.THINKING: _thinking_damages}
        made = by_channel.get(item.focus_on, _call_damages)(item, reference)
    elif isinstance(item.check, NotCalled):
        made = _forbidden_calls(item.check, reference)
    elif isinstance(item.check, CallOrder):
        made = _order_damages(item.check, reference)
    elif isinstance(item.check, ReplyRepeats):
        made = _repeat_damages(item.check, reference)
    elif isinstance(item.check, ReplyMentions | ReplyAsks):
        made = _reply_damages(item, reference)
    else:
        made = _call_damages(item, reference)
    return [one for place, one in enumerate(made) if one.turn != reference and one not in made[:place]]


def other_value(value: Any, tolerance: float = 0.0) -> Any:
    """A value of the same type that is not the same; a made-up name for one that is nested too deeply."""
    try:
        return _other(value, tolerance)
    except RecursionError:
        return OTHER_WORD


def _other(value: Any, tolerance: float = 0.0) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        other = json.loads(json.dumps(value).translate(_OTHER_DIGITS))
        return value + 10 * tolerance + 7 if equal_values(value, other, tolerance) else other
    if isinstance(value, str):
        return other_text(value)
    if isinstance(value, list):
        return [*map(_other, value)] if value else [OTHER_WORD]
    if isinstance(value, dict):
        return {key: _other(entry) for key, entry in value.items()} if value else {"other": OTHER_WORD}
    return OTHER_WORD


def other_text(text: str) -> str:
    """Other digits where it has some, else a made-up name."""
    return text.translate(_OTHER_DIGITS) if any(sign.isdigit() for sign in text) else OTHER_WORD


def targets(item: Item, reference: TurnRecord) -> list[CallRecord]:
    """The calls of the reference that the item is about: those its check matches, or that show its evidence."""
    calls = [call for step in reference.steps for call in step.calls]
    if isinstance(item.check, Called | ResponseReceived):
        bounds = {"at_most": None, "at_least": None}
        single = item.check.model_copy(update=bounds) if isinstance(item.check, Called) else item.check
        return [call for call in calls if _satisfies(_only(call, reference), single)]
    snippets = [evidence for evidence in item.evidence if evidence.channel is item.focus_on]
    return [
        call
        for call in calls
        if succeeded(call) and any(_mentions(_text(call, evidence.channel), evidence.snippet) for evidence in snippets)
    ]


def leaves(response: str) -> list[str]:
    """The values in a response: strings and numbers of its JSON, or the numbers and codes of any other text."""
    try:
        return list(dict.fromkeys(_json_leaves(json.loads(response))))
    except (ValueError, RecursionError):
        return numbers(response)


def numbers(text: str) -> list[str]:
    """The pieces of a text that hold a digit: numbers, dates, codes."""
    found = re.findall(r"[\w][\w.,:/-]*", text)
    return list(dict.fromkeys(piece.rstrip(".,:/-") for piece in found if any(sign.isdigit() for sign in piece)))


def _call_damages(item: Item, reference: TurnRecord) -> list[Damaged]:
    found = targets(item, reference)
    if not found:
        return []
    ids = {call.call_id for call in found}
    made = [Damaged(Damage.DROPPED_CALL, _change(reference, lambda call: None if call.call_id in ids else call))]
    if isinstance(item.check, Called) and (wanted := item.check.at_least or 1) > 1:
        few = {call.call_id for call in found[wanted - 1 :]}
        made.append(
            Damaged(Damage.DROPPED_CALL, _change(reference, lambda call: None if call.call_id in few else call))
        )
    if not (isinstance(item.check, Called) and not item.check.succeeded):
        failed = {"response": _ERROR, "is_error": True}
        made.append(Damaged(Damage.FAILED_CALL, _change(reference, _updating(ids, failed))))
    if item.check is None and item.focus_on is FocusOn.TOOL_CALLS and _COUNTS.search(_asked(item)):
        made.insert(1, Damaged(Damage.REPEATED_CALL, _with_calls(reference, [found[-1]])))
    if item.focus_on is FocusOn.TOOL_RESPONSE or isinstance(item.check, ResponseReceived):
        return made + _response_damages(item, reference, found)
    check = item.check if isinstance(item.check, Called) else None
    named = dict.fromkeys(check.arguments if check else ())
    text = _asked(item)
    for call in found:
        named |= dict.fromkeys(
            name for name, value in (call.arguments or {}).items() if _mentions(text, _as_text(value))
        )
    for name in named:

        def with_other(call: CallRecord, name: str = name) -> CallRecord:
            if call.call_id not in ids:
                return call
            given = dict(call.arguments or {})
            given[name] = other_value(given.get(name), check.tolerance if check else 0.0)
            return call.model_copy(update={"arguments": given})

        made.append(Damaged(Damage.WRONG_ARGUMENT, _change(reference, with_other)))
    if check is not None and check.at_most is not None:
        again = [found[0]] * (check.at_most + 1 - len(found))
        made.append(Damaged(Damage.REPEATED_CALL, _with_calls(reference, again)))
    return made


def _response_damages(item: Item, reference: TurnRecord, found: Sequence[CallRecord]) -> list[Damaged]:
    named = list(item.check.values) if isinstance(item.check, ResponseReceived) else []
    text = _asked(item)
    for call in found:
        named += [leaf for leaf in leaves(call.response or "") if _mentions(text, leaf)]
    made = []
    for value in dict.fromkeys(named):
        changed = {call.call_id: _without(call.response or "", [value]) for call in found}
        if None not in changed.values():

            def answer_otherwise(call: CallRecord, changed: dict[str, str | None] = changed) -> CallRecord:
                other = changed.get(call.call_id, call.response)
                return call.model_copy(update={"response": other})

            made.append(Damaged(Damage.WRONG_RESPONSE, _change(reference, answer_otherwise)))
    return made


def _forbidden_calls(check: NotCalled, reference: TurnRecord) -> list[Damaged]:
    return [
        Damaged(Damage.FORBIDDEN_CALL, _with_calls(reference, [_made_up_call(name)]))
        for name in check.tools or ("any_tool",)
    ]


def _order_damages(check: CallOrder, reference: TurnRecord) -> list[Damaged]:
    first = [call for step in reference.steps for call in step.calls if call.name == check.first and succeeded(call)]
    without_first = _change(reference, lambda call: None if call.name == check.first else call)
    without_then = _change(reference, lambda call: None if call.name == check.then else call)
    return [
        Damaged(Damage.REORDERED, _with_calls(without_first, first)),
        Damaged(Damage.DROPPED_CALL, without_then),
        Damaged(Damage.DROPPED_CALL, without_first),
    ]


def _reply_damages(item: Item, reference: TurnRecord) -> list[Damaged]:
    if not reference.complete:
        return []
    made = [Damaged(Damage.EMPTY_REPLY, _with_reply(reference, ""))]
    check = item.check
    only_forbids = isinstance(check, ReplyMentions) and not check.all_of
    if not only_forbids:
        made.append(Damaged(Damage.GENERIC_REPLY, _with_reply(reference, GENERIC)))
    if isinstance(check, ReplyAsks):
        made.append(Damaged(Damage.NO_QUESTION, _with_reply(reference, reference.reply.replace("?", "."))))
    if isinstance(check, ReplyMentions):
        made += [
            Damaged(Damage.FORBIDDEN_WORDS, _with_reply(reference, f"{reference.reply} {phrase}"))
            for phrase in check.none_of
        ]
    groups = [list(group) for group in check.all_of] if isinstance(check, ReplyMentions) else []
    if not only_forbids and not isinstance(check, ReplyAsks):
        groups += [[value] for value in named_values(item, reference) if [value] not in groups]
    for group in groups:
        other = _without(reference.reply, group)
        if other is not None:
            made.append(Damaged(Damage.WRONG_VALUE, _with_reply(reference, other)))
    return made


def _repeat_damages(check: ReplyRepeats, reference: TurnRecord) -> list[Damaged]:
    """The reply says something else than the response, whichever of the two is changed; or there is no response."""
    calls = [call for step in reference.steps for call in step.calls if call.name == check.tool and succeeded(call)]
    if not reference.complete or not calls:
        return []
    ids, last = {call.call_id for call in calls}, calls[-1]
    made = [
        Damaged(Damage.EMPTY_REPLY, _with_reply(reference, "")),
        Damaged(Damage.GENERIC_REPLY, _with_reply(reference, GENERIC)),
        Damaged(Damage.DROPPED_CALL, _change(reference, lambda call: None if call.call_id in ids else call)),
        Damaged(Damage.FAILED_CALL, _change(reference, _updating(ids, {"response": _ERROR, "is_error": True}))),
    ]
    for path in check.fields:
        response = last.response or ""
        made += [
            Damaged(Damage.WRONG_VALUE, _with_reply(reference, other))
            for value in field_values(response, path)
            if (other := _without(reference.reply, [value])) is not None
        ]
        answered = with_field(response, path, other_value(field(response, path)))
        if answered is not None and any(not _mentions(reference.reply, one) for one in field_values(answered, path)):
            changed = _change(reference, _updating({last.call_id}, {"response": answered}))
            made.append(Damaged(Damage.WRONG_RESPONSE, changed))
    return made


def _thinking_damages(item: Item, reference: TurnRecord) -> list[Damaged]:
    steps = tuple(step.model_copy(update={"thinking": ""}) for step in reference.steps)
    return [Damaged(Damage.NO_THINKING, reference.model_copy(update={"steps": steps}))]


def named_values(item: Item, reference: TurnRecord) -> list[str]:
    """Values of the reply (its numbers and codes, and what the turn's responses hold) that the item's words name."""
    text = _asked(item)
    held = [leaf for step in reference.steps for call in step.calls for leaf in leaves(call.response or "")]
    # 1,200 and 1200 are one value, and "21" is none of its own beside "January 21".
    values = {tokenize(value).joined: value for value in [*held, *numbers(reference.reply)]}.values()
    named = [value for value in values if _mentions(text, value) and _mentions(reference.reply, value)]
    return [value for value in named if not any(other != value and _mentions(other, value) for other in named)]


def _asked(item: Item) -> str:
    return f"{item.question}\n{item.pass_condition}"


def _mentions(text: str, phrase: str) -> bool:
    return bool(tokenize(phrase).spans) and find_mention(text, phrase) is not None


def _without(text: str, phrases: Sequence[str]) -> str | None:
    """The text with another value wherever one of the phrases is mentioned; None if none is, or it cannot be done."""
    changed = text
    for _ in range(20):
        found = next((f for p in phrases if tokenize(p).spans and (f := find_mention(changed, p)) is not None), None)
        if found is None:
            return changed if changed != text else None
        changed = changed.replace(found, other_text(found))
    return None


def _text(call: CallRecord, channel: FocusOn) -> str:
    return quote_call(call) if channel is FocusOn.TOOL_CALLS else (call.response or "")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def _json_leaves(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for entry in value.values():
            yield from _json_leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _json_leaves(entry)
    elif isinstance(value, str):
        if 0 < len(value) <= 80:
            yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


def _made_up_call(name: str) -> CallRecord:
    return CallRecord(call_id="made_up", name=name, arguments={}, response='{"ok":true}')


def _satisfies(turn: TurnRecord, check: Called | ResponseReceived) -> bool:
    try:
        return decide_check(check, turn).satisfied
    except ValueError:  # a check that nobody can decide is about nothing
        return False


def _only(call: CallRecord, reference: TurnRecord) -> TurnRecord:
    step = StepRecord(index=0, calls=(call,), finish_reason="tool_calls")
    return reference.model_copy(update={"steps": (step,)})


def _updating(ids: set[str], update: dict[str, Any]) -> Callable[[CallRecord], CallRecord]:
    return lambda call: call.model_copy(update=update) if call.call_id in ids else call


def _change(turn: TurnRecord, change: Callable[[CallRecord], CallRecord | None]) -> TurnRecord:
    """The turn with every call changed, or left out where `change` gives None; steps left without a call go."""
    steps: list[StepRecord] = []
    for step in turn.steps:
        calls = tuple(new for call in step.calls if (new := change(call)) is not None)
        if calls or not step.calls:
            steps.append(step.model_copy(update={"index": len(steps), "calls": calls}))
    return turn.model_copy(update={"steps": tuple(steps)})


def _with_calls(turn: TurnRecord, calls: Sequence[CallRecord]) -> TurnRecord:
    """The turn with one more step of these calls before its reply."""
    new = tuple(call.model_copy(update={"call_id": f"{call.call_id}_again_{n}"}) for n, call in enumerate(calls))
    before, reply = (turn.steps[:-1], turn.steps[-1:]) if turn.complete else (turn.steps, ())
    steps = [*before, StepRecord(index=0, calls=new, finish_reason="tool_calls"), *reply] if new else turn.steps
    numbered = tuple(step.model_copy(update={"index": index}) for index, step in enumerate(steps))
    return turn.model_copy(update={"steps": numbered})


def _with_reply(turn: TurnRecord, reply: str) -> TurnRecord:
    last = turn.steps[-1].model_copy(update={"content": reply})
    return turn.model_copy(update={"steps": (*turn.steps[:-1], last)})
