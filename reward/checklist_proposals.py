"""Checks for items: proposed by the annotator or derived from evidence, kept only if they prove themselves.

A check is kept if the reference passes it and every damaged reference that concerns the item fails it (reward/damages).
What is dropped leaves the item to the LLM judge. Pure; reads and writes nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reward.checks import decide_check
from reward.damages import damages, leaves, named_values, targets
from reward.mentions import find_mention, tokenize
from store.records import (
    Called,
    CallOrder,
    CallRecord,
    Check,
    Item,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ReplyRepeats,
    ResponseReceived,
    ToolSpec,
    TurnRecord,
)
from store.vocabulary import FocusOn

CHANNELS: dict[type, FocusOn] = {
    Called: FocusOn.TOOL_CALLS,
    NotCalled: FocusOn.TOOL_CALLS,
    CallOrder: FocusOn.TOOL_CALLS,
    ResponseReceived: FocusOn.TOOL_RESPONSE,
    ReplyMentions: FocusOn.REPLY,
    ReplyRepeats: FocusOn.REPLY,
    ReplyAsks: FocusOn.REPLY,
}
"""What each kind of check looks at; an item's check looks at the item's own channel."""

_NOT_SAID_BY_EVIDENCE = re.compile(
    r"\b(?:not|never|no|without|only|avoid\w*|refrain\w*|before|after|until|unless|if|when|first|then|once|twice|"
    r"again|exactly|most|least|more|fewer|less|every|each|all|both|either|or|ask\w*|confirm\w*|offer\w*|suggest\w*|"
    r"apolog\w*|explain\w*|why|because|correct\w*|wrong|consistent\w*|instead)\b",
    re.IGNORECASE,
)
"""Words of a condition that says more than its evidence shows: no check is derived for it."""
_NO_ERROR = re.compile(r"\b(?:not|no|without)\b[^.,;]{0,24}\berrors?\b", re.IGNORECASE)
"""What every check of a call or response asks for anyway."""


@dataclass(frozen=True)
class Settled:
    """An item with the check that proved itself, if one did."""

    item: Item
    proposed: bool = False
    """The annotator proposed a check."""
    derived: bool = False
    """The check was derived from the item's evidence."""
    dropped: str | None = None
    """Why a check was not kept."""


def settle_check(item: Item, proposal: Check | None, reference: TurnRecord, tools: Mapping[str, ToolSpec]) -> Settled:
    """The item with `proposal` as its check if that proves itself; without a proposal, with one that is derived."""
    proposed = proposal is not None
    check = proposal or derive_check(item, reference)
    if check is None:
        return Settled(item)
    reason = why_dropped(check, item, reference, tools)
    if reason is None:
        return Settled(item.model_copy(update={"check": check}), proposed, not proposed)
    return Settled(item, proposed, False, f"{check.kind}: {reason}")


def why_dropped(check: Check, item: Item, reference: TurnRecord, tools: Mapping[str, ToolSpec]) -> str | None:
    """Why the check cannot decide the item; None if the reference passes it and each damaged reference fails it."""
    if CHANNELS[type(check)] is not item.focus_on:
        return f"it looks at another channel than its item ({item.focus_on.value})"
    unknown = [name for name in _tools_of(check) if name not in tools]
    if unknown:
        return f"there is no tool {unknown[0]!r}"
    try:
        if not decide_check(check, reference).satisfied:
            return f"the reference fails it: {decide_check(check, reference).reason}"
        made = damages(item.model_copy(update={"check": check}), reference)
        passed = [damaged.kind for damaged in made if decide_check(check, damaged.turn).satisfied]
    except ValueError as error:
        return str(error)
    if not made:
        return "nothing to try it on"
    return f"a damaged reference passes it: {passed[0]}" if passed else None


def derive_check(item: Item, reference: TurnRecord) -> Check | None:
    """A check for an item whose words say no more than that its evidence is there; None where they may.

    Asked for are the tool's name and the values, in the item's own words: a call to a named tool with named arguments,
    a response of a named tool with named values, a reply with named values.
    """
    text = f"{item.question}\n{item.pass_condition}"
    if item.must_not or not item.evidence or _NOT_SAID_BY_EVIDENCE.search(_NO_ERROR.sub("", text)):
        return None
    if item.focus_on is FocusOn.REPLY:
        values = named_values(item, reference)
        return ReplyMentions(all_of=tuple((value,) for value in values)) if values else None
    if item.focus_on is FocusOn.THINKING:
        return None
    found = [call for call in targets(item, reference) if _is_named(text, call.name)]
    if len({call.name for call in found}) != 1:
        return None
    call = found[0]
    if item.focus_on is FocusOn.TOOL_RESPONSE:
        named = tuple(value for value in leaves(call.response or "") if _is_named(text, value))
        return ResponseReceived(tool=call.name, values=named) if named else None
    arguments = {name: value for name, value in _arguments(call) if _is_named(text, value)}
    return Called(tool=call.name, arguments=arguments) if arguments else None


def _arguments(call: CallRecord) -> list[tuple[str, str | int | float]]:
    """Those with a plain value: what a text can name."""
    given = (call.arguments or {}).items()
    return [(n, v) for n, v in given if isinstance(v, str | int | float) and not isinstance(v, bool)]


def _is_named(text: str, value: str | int | float) -> bool:
    phrase = str(value)
    return bool(tokenize(phrase).spans) and find_mention(text, phrase) is not None


def _tools_of(check: Check) -> tuple[str, ...]:
    if isinstance(check, Called | ResponseReceived | ReplyRepeats):
        return (check.tool,)
    if isinstance(check, CallOrder):
        return check.first, check.then
    return check.tools if isinstance(check, NotCalled) else ()
