"""Decides an item's check on a turn as it happened, without a model. Pure: reads a TurnRecord, writes nothing.

What a check can see is the turn alone. Two rules hold for every kind:

- A failed call (an error, or no response at all) is no evidence, unless the check says `succeeded=False`.
- What must *not* happen (`not_called`, `none_of`, `at_most`) and what the reply must say are decided at the end of the
  turn. A turn without a reply, or with an empty one, never got there, and fails them (CM2's reference code let "must
  not" items pass too early).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reward.arguments import first_difference
from reward.mentions import find_mention, questions
from reward.response_fields import field_values
from store.records import (
    Called,
    CallOrder,
    CallRecord,
    Check,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ReplyRepeats,
    ResponseReceived,
    StepRecord,
    TurnRecord,
    canonical_json,
)

QUOTE_LENGTH = 300
"""Characters of a tool response that are quoted at most."""
TOO_DEEP = "[nested too deeply to be shown]"
"""Stands for arguments that the policy nested so deeply that they cannot be written out."""


@dataclass(frozen=True)
class CheckResult:
    satisfied: bool
    step_index: int | None
    """The step of the turn at which it first held; None unless satisfied."""
    reason: str
    quote: str = ""
    """A literal piece of evidence, for or against; empty where the evidence is that something is missing."""


def decide_check(check: Check, turn: TurnRecord) -> CheckResult:
    """Whether `turn` satisfies `check`, since which step, why, and a quote.

    Raises ValueError for a check that cannot be decided by anyone (a phrase without a word in it).
    """
    return _DECIDERS[type(check)](check, turn)


def has_reply(turn: TurnRecord) -> bool:
    """Whether the turn ended with a reply that says something."""
    return turn.complete and bool(turn.reply.strip())


def succeeded(call: CallRecord) -> bool:
    return call.arguments is not None and call.response is not None and not call.is_error


def quote_call(call: CallRecord) -> str:
    """The call as a judge is shown it, and as it is quoted."""
    arguments = None if call.arguments is None else dict(call.arguments)
    try:
        return canonical_json({"name": call.name, "arguments": arguments})
    except RecursionError:
        return canonical_json({"name": call.name, "arguments": TOO_DEEP})


def _decide_called(check: Called, turn: TurnRecord) -> CheckResult:
    to_tool = [(step, call) for step, call in _calls(turn) if call.name == check.tool]
    matching = [
        (step, call)
        for step, call in to_tool
        if call.arguments is not None
        and first_difference(check.arguments, call.arguments, check.tolerance) is None
        and (succeeded(call) or not check.succeeded)
    ]
    if not matching:
        return _no_such_call(check, [call for _, call in to_tool], turn)
    wanted = check.at_least or 1
    if len(matching) < wanted:
        count = f"{len(matching)} times, at least {wanted} asked for"
        return CheckResult(False, None, f"{check.tool} was called {count}", quote_call(matching[-1][1]))
    step, call = matching[wanted - 1]
    if check.at_most is None:
        times = "" if check.at_least is None else f", {wanted} times"
        return CheckResult(True, step.index, f"{check.tool} was called as asked{times}", quote_call(call))
    if len(matching) > check.at_most:
        count = f"{len(matching)} times, at most {check.at_most} allowed"
        return CheckResult(False, None, f"{check.tool} was called {count}", quote_call(matching[check.at_most][1]))
    if not has_reply(turn):
        return _never_replied("at_most is decided at the end of the turn")
    times = f"{len(matching)} of at most {check.at_most} times"
    return CheckResult(True, turn.steps[-1].index, f"{check.tool} was called as asked, {times}", quote_call(call))


def _no_such_call(check: Called, to_tool: list[CallRecord], turn: TurnRecord) -> CheckResult:
    if not to_tool:
        others = ", ".join(dict.fromkeys(call.name for _, call in _calls(turn)))
        return CheckResult(False, None, f"no call to {check.tool}" + (f"; called instead: {others}" if others else ""))
    failed_match: CallRecord | None = None
    for call in to_tool:
        if call.arguments is not None and first_difference(check.arguments, call.arguments, check.tolerance) is None:
            failed_match = call
    if failed_match is not None:
        why = "got no response" if failed_match.response is None else "failed"
        return CheckResult(False, None, f"the call to {check.tool} {why}", quote_call(failed_match))
    last = to_tool[-1]
    if last.arguments is None:
        return CheckResult(False, None, f"the arguments of the call to {check.tool} are no JSON", quote_call(last))
    name = first_difference(check.arguments, last.arguments, check.tolerance)
    assert name is not None
    given = _short(last.arguments[name]) if name in last.arguments else "absent"
    wanted = _short(check.arguments[name])
    reason = f"no call to {check.tool} with {name} = {wanted} (last one: {given})"
    return CheckResult(False, None, reason, quote_call(last))


def _decide_not_called(check: NotCalled, turn: TurnRecord) -> CheckResult:
    for _, call in _calls(turn):
        if not check.tools or call.name in check.tools:
            return CheckResult(False, None, f"{call.name} was called", quote_call(call))
    if not has_reply(turn):
        return _never_replied("that nothing was called is decided at the end of the turn")
    what = " or ".join(check.tools) if check.tools else "any tool"
    return CheckResult(True, turn.steps[-1].index, f"no call to {what} in the turn")


def _decide_response_received(check: ResponseReceived, turn: TurnRecord) -> CheckResult:
    closest = CheckResult(False, None, f"no response of {check.tool}")
    for step, call in _calls(turn):
        if call.name != check.tool or call.response is None:
            continue
        if not succeeded(call):
            closest = CheckResult(False, None, f"{check.tool} answered with an error", call.response[:QUOTE_LENGTH])
            continue
        text = _readable(call.response)
        mentions = [find_mention(text, value) for value in check.values]
        if None not in mentions:
            quote = _excerpt(call.response, next(iter(mentions), "") or "")
            return CheckResult(True, step.index, f"{check.tool} answered with what was asked for", quote)
        lacking = check.values[mentions.index(None)]
        closest = CheckResult(
            False, None, f"the response of {check.tool} lacks {lacking!r}", call.response[:QUOTE_LENGTH]
        )
    return closest


def _decide_reply_mentions(check: ReplyMentions, turn: TurnRecord) -> CheckResult:
    if not has_reply(turn):
        return _never_replied("there is nothing to read")
    quotes = []
    for alternatives in check.all_of:
        found = next((m for phrase in alternatives if (m := find_mention(turn.reply, phrase)) is not None), None)
        if found is None:
            wanted = " or ".join(repr(phrase) for phrase in alternatives)
            return CheckResult(False, None, f"the reply does not mention {wanted}")
        quotes.append(found)
    for phrase in check.none_of:
        if (found := find_mention(turn.reply, phrase)) is not None:
            return CheckResult(False, None, f"the reply mentions {phrase!r}, which it must not", found)
    reason = f"the reply mentions {', '.join(quotes)}" if quotes else "the reply mentions nothing that it must not"
    return CheckResult(True, turn.steps[-1].index, reason, quotes[0] if quotes else "")


def _decide_reply_repeats(check: ReplyRepeats, turn: TurnRecord) -> CheckResult:
    if not has_reply(turn):
        return _never_replied("there is nothing to read")
    response = last_response(turn, check.tool)
    if response is None:
        return CheckResult(False, None, f"there is no response of {check.tool} in the turn that the reply could repeat")
    quotes = []
    for path in check.fields:
        values = field_values(response, path)
        if not values:
            reason = f"the response of {check.tool} has nothing to mention at {path!r}"
            return CheckResult(False, None, reason, response[:QUOTE_LENGTH])
        for value in values:
            found = find_mention(turn.reply, value)
            if found is None:
                reason = f"the reply does not mention {_short(value)}, which {check.tool} answered at {path!r}"
                return CheckResult(False, None, reason, _excerpt(response, value))
            quotes.append(found)
    reason = f"the reply mentions {', '.join(quotes)}, as {check.tool} answered"
    return CheckResult(True, turn.steps[-1].index, reason, quotes[0])


def last_response(turn: TurnRecord, tool: str) -> str | None:
    """The last response of a tool in the turn that is no error."""
    found = [call.response for _, call in _calls(turn) if call.name == tool and succeeded(call)]
    return found[-1] if found else None


def _decide_reply_asks(check: ReplyAsks, turn: TurnRecord) -> CheckResult:
    if not has_reply(turn):
        return _never_replied("nothing was asked")
    asked = questions(turn.reply)
    for question in asked:
        for phrase in check.about:
            if find_mention(question, phrase) is not None:
                return CheckResult(True, turn.steps[-1].index, f"the reply asks about {phrase}", question)
    about = " or ".join(check.about)
    if asked:
        return CheckResult(False, None, f"the reply asks, but not about {about}", asked[-1])
    return CheckResult(False, None, f"the reply asks no question (about {about})")


def _decide_call_order(check: CallOrder, turn: TurnRecord) -> CheckResult:
    """The first successful `then` decides: later ones cannot come before a `first` that it came after.

    Parallel calls of one step do not see each other's responses, so `first` has to stand in an earlier step. Without a
    call to `then` there is no order to reward.
    """
    first_step: int | None = None
    for step, call in _calls(turn):
        if not succeeded(call):
            continue
        if call.name == check.then:
            if first_step is not None and first_step < step.index:
                reason = f"{check.then} was called after {check.first}"
                return CheckResult(True, step.index, reason, quote_call(call))
            reason = f"{check.then} was called before a response of {check.first} was there"
            return CheckResult(False, None, reason, quote_call(call))
        if call.name == check.first and first_step is None:
            first_step = step.index
    return CheckResult(False, None, f"no successful call to {check.then}")


_DECIDERS: dict[type, Callable[[Any, TurnRecord], CheckResult]] = {
    Called: _decide_called,
    NotCalled: _decide_not_called,
    ResponseReceived: _decide_response_received,
    ReplyMentions: _decide_reply_mentions,
    ReplyRepeats: _decide_reply_repeats,
    ReplyAsks: _decide_reply_asks,
    CallOrder: _decide_call_order,
}


def _calls(turn: TurnRecord) -> Iterator[tuple[StepRecord, CallRecord]]:
    for step in turn.steps:
        for call in step.calls:
            yield step, call


def _never_replied(why: str) -> CheckResult:
    return CheckResult(False, None, f"the turn ended without a reply: {why}")


def _readable(response: str) -> str:
    """A JSON response without its escapes, which would glue letters to words (`\\nTotal`)."""
    if "\\" not in response:
        return response
    try:
        return "\n".join(_leaves(json.loads(response)))
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, nesting without end
        return response


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield str(key)
            yield from _leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _excerpt(response: str, around: str) -> str:
    if len(response) <= QUOTE_LENGTH:
        return response
    start = max(0, response.find(around) - QUOTE_LENGTH // 2)
    return response[start : start + QUOTE_LENGTH]


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return TOO_DEEP
    return text if len(text) <= 60 else text[:57] + "..."
