"""What went wrong where an item failed: one pattern an item, by its kind, the turn's calls and the reason given.

Pure: reads a failed item and the dialogue's turns up to it. What the turn shows goes before what a judge wrote; a
judge's words decide only where the turn does not (docs/overview.md has the rules as a table).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from reward.checks import has_reply, succeeded
from store.database import Log
from store.failures import FailedItem, failures_in, newest_judged
from store.records import CallRecord, TurnRecord, canonical_json
from store.turns import turns_of
from store.vocabulary import FocusOn

LOOKED_AT = 300
"""Dialogues of each version that are looked at, the newest: their turns are read, which bounds the work."""
TREND = 5
"""Versions whose shares stand beside each other, the newest among them."""
SAME_CALLS = 3
"""The same call so often in one turn is a loop."""


class FailurePattern(StrEnum):
    LOOP = "loop"
    """The same call with the same arguments three times or more in the turn."""
    GAVE_UP = "gave up"
    """The turn ended without a reply."""
    MISSING_CALL = "missing call"
    """No tool was called where one was asked for."""
    WRONG_TOOL = "wrong tool"
    WRONG_ARGUMENT = "wrong argument"
    FAILED_CALL = "failed call"
    """The right tool answered with an error, or not at all."""
    NEEDLESS_CALL = "needless call"
    """A call that must not be, or too many of them."""
    WRONG_ORDER = "wrong order"
    UNSUPPORTED_CLAIM = "unsupported claim"
    """The reply says what it must not, or a number that nothing before it says."""
    LEFT_OUT = "left out"
    """The reply does not say what it should."""
    DID_NOT_ASK = "did not ask"
    OTHER = "other"


MEANING = {
    FailurePattern.LOOP: f"the same call {SAME_CALLS} times or more in a turn",
    FailurePattern.GAVE_UP: "the turn ended without a reply",
    FailurePattern.MISSING_CALL: "no tool was called where one was asked for",
    FailurePattern.WRONG_TOOL: "another tool was called than the one asked for",
    FailurePattern.WRONG_ARGUMENT: "the right tool, with other arguments",
    FailurePattern.FAILED_CALL: "the right tool answered with an error, or not at all",
    FailurePattern.NEEDLESS_CALL: "a call that must not be, or too many of them",
    FailurePattern.WRONG_ORDER: "called before what has to come first",
    FailurePattern.UNSUPPORTED_CLAIM: "the reply says what it must not, or a number that nothing before it says",
    FailurePattern.LEFT_OUT: "the reply does not say what it should",
    FailurePattern.DID_NOT_ASK: "the reply should have asked the user something",
    FailurePattern.OTHER: "nothing of these",
}

_WORDS = (
    (FailurePattern.UNSUPPORTED_CLAIM, r"made up|invent|hallucinat|unsupported|fabricat|not supported|no evidence"),
    (FailurePattern.MISSING_CALL, r"no (tool )?call|(did|does) not call|never call|without calling|not called"),
    (FailurePattern.WRONG_TOOL, r"wrong tool|another tool|different tool|called instead"),
    (FailurePattern.WRONG_ARGUMENT, r"argument|parameter"),
)
"""What a judge's reason says, tried in this order."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def name_failure(failed: FailedItem, turns: Sequence[TurnRecord]) -> FailurePattern:
    """The pattern of one failed item. `turns`: the dialogue's turns; those after the item's are not looked at."""
    turn = next((turn for turn in turns if turn.index == failed.turn_index), None)
    if turn is None:
        return FailurePattern.GAVE_UP
    if _loops(turn):
        return FailurePattern.LOOP
    calls = [call for step in turn.steps for call in step.calls]
    match failed.kind:
        case "called" | "response_received":
            return _of_tool(failed, calls)
        case "call_order":
            found = _of_tool(failed, calls)
            return FailurePattern.WRONG_ORDER if found is FailurePattern.WRONG_ARGUMENT else found
        case "not_called":
            return FailurePattern.NEEDLESS_CALL if calls else FailurePattern.GAVE_UP
        case "reply_asks":
            return FailurePattern.DID_NOT_ASK if has_reply(turn) else FailurePattern.GAVE_UP
        case "reply_repeats" if has_reply(turn) and failed.reason.startswith("there is no response"):
            return _of_tool(failed, calls)
        case "reply_mentions" | "reply_repeats":
            return _of_reply(failed, turns, turn)
    if failed.channel is FocusOn.REPLY and not has_reply(turn):
        return FailurePattern.GAVE_UP
    if failed.channel is FocusOn.TOOL_CALLS and not calls:
        return FailurePattern.MISSING_CALL
    if failed.channel is FocusOn.TOOL_RESPONSE and calls and not any(map(succeeded, calls)):
        return FailurePattern.FAILED_CALL
    said = failed.reason.lower()
    for pattern, words in _WORDS:
        if re.search(words, said):
            return pattern
    if failed.channel is FocusOn.REPLY:
        return _of_reply(failed, turns, turn)
    return FailurePattern.OTHER


def _loops(turn: TurnRecord) -> bool:
    same = Counter(
        (call.name, canonical_json(dict(call.arguments)))
        for step in turn.steps
        for call in step.calls
        if call.arguments is not None
    )
    return max(same.values(), default=0) >= SAME_CALLS


def _of_tool(failed: FailedItem, calls: Sequence[CallRecord]) -> FailurePattern:
    """A call to one tool was asked for, or its answer."""
    if not calls:
        return FailurePattern.MISSING_CALL
    to_tool = [call for call in calls if call.name == failed.tool]
    if not to_tool:
        return FailurePattern.WRONG_TOOL
    if "at most" in failed.reason:
        return FailurePattern.NEEDLESS_CALL
    if "at least" in failed.reason:
        return FailurePattern.MISSING_CALL
    # Arguments that a tool refuses are mostly wrong ones: the check says whether they were those asked for.
    if any(map(succeeded, to_tool)) or failed.reason.startswith("no call to") or "no JSON" in failed.reason:
        return FailurePattern.WRONG_ARGUMENT
    return FailurePattern.FAILED_CALL


def _of_reply(failed: FailedItem, turns: Sequence[TurnRecord], turn: TurnRecord) -> FailurePattern:
    if not has_reply(turn):
        return FailurePattern.GAVE_UP
    if "must not" in failed.reason or _unsaid_numbers(turns, turn):
        return FailurePattern.UNSUPPORTED_CLAIM
    return FailurePattern.LEFT_OUT


def _unsaid_numbers(turns: Sequence[TurnRecord], turn: TurnRecord) -> set[str]:
    """Numbers of the reply that stand in nothing the user wrote and no tool answered, up to this turn."""
    known: set[str] = set()
    for one in turns:
        if one.index <= turn.index:
            known |= _numbers(one.user)
            for step in one.steps:
                for call in step.calls:
                    known |= _numbers(call.response or "")
    return _numbers(turn.reply) - known


def _numbers(text: str) -> set[str]:
    """As written, without separators of thousands: "1,200" is "1200"."""
    return {found.replace(",", "") for found in _NUMBER.findall(text)}


@dataclass(frozen=True)
class PatternFigures:
    """One pattern in the newest dialogues of a version, and how often it was in those of the versions before."""

    pattern: FailurePattern
    items: int
    dialogues: int
    """In how many of those looked at it occurs."""
    share: float
    """Of the dialogues looked at."""
    trend: tuple[float | None, ...]
    """That share in each of `Patterns.earlier`; None where nothing of that version was judged."""
    behind: tuple[FailedItem, ...]
    """The newest dialogues first."""

    @property
    def share_before(self) -> float | None:
        """In the version right before; None where there is none."""
        return self.trend[-1] if self.trend else None


@dataclass(frozen=True)
class Patterns:
    version: str
    earlier: tuple[str, ...]
    """The versions of the trend, oldest first."""
    dialogues: int
    """Looked at: the newest that are judged."""
    dialogues_earlier: tuple[int, ...]
    """The same of each earlier version."""
    figures: tuple[PatternFigures, ...]
    """The most frequent first."""


def find_patterns(
    log: Log,
    *,
    version: str,
    earlier: Sequence[str] = (),
    origin: str | None = None,
    batch: str | None = None,
    domain: str | None = None,
    limit: int = LOOKED_AT,
) -> Patterns:
    """What went wrong in the newest `limit` judged dialogues of a version that the filters leave, beside as many of
    each version before (`earlier`, oldest first)."""
    wanted = {"origin": origin, "batch": batch, "domain": domain}
    now, seen = _named(log, version, limit, **wanted)
    before = [_named(log, name, limit, **wanted) for name in earlier]
    figures = []
    for pattern, failed in now.items():
        trend = tuple(_dialogues(then.get(pattern, ())) / of if of else None for then, of in before)
        dialogues = _dialogues(failed)
        figures.append(PatternFigures(pattern, len(failed), dialogues, dialogues / seen, trend, tuple(failed)))
    figures.sort(key=lambda one: (-one.items, one.pattern))
    return Patterns(version, tuple(earlier), seen, tuple(of for _, of in before), tuple(figures))


def _named(
    log: Log, version: str, limit: int, **wanted: str | None
) -> tuple[Mapping[FailurePattern, list[FailedItem]], int]:
    ids = newest_judged(log, version, limit=limit, **wanted)
    failures = failures_in(log, ids)
    turns = turns_of(log, [one.trajectory_id for one in failures])
    found: dict[FailurePattern, list[FailedItem]] = {}
    for one in failures:
        found.setdefault(name_failure(one, turns.get(one.trajectory_id, ())), []).append(one)
    return found, len(ids)


def _dialogues(failed: Iterable[FailedItem]) -> int:
    return len({one.trajectory_id for one in failed})
