"""Two dialogues of one scenario beside each other: which steps belong together, and in what they differ. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest

from store.records import CallRecord, StepRecord


@dataclass(frozen=True)
class StepPair:
    """Steps beside each other; None where one side has none. `differs` says in what, empty if in nothing."""

    left: StepRecord | None
    right: StepRecord | None
    differs: tuple[str, ...]


def align_steps(left: Sequence[StepRecord], right: Sequence[StepRecord]) -> list[StepPair]:
    """The steps of a turn on both sides, in order.

    Steps that call the same tools belong together, as do replies; what is between those is paired in order.
    """
    matcher = SequenceMatcher(None, [_shape(step) for step in left], [_shape(step) for step in right], autojunk=False)
    pairs = []
    for _, first, last, start, end in matcher.get_opcodes():
        pairs += [
            StepPair(one, other, differences(one, other))
            for one, other in zip_longest(left[first:last], right[start:end])
        ]
    return pairs


def differences(left: StepRecord | None, right: StepRecord | None) -> tuple[str, ...]:
    """In what two steps differ, the weightiest first: steps, calls, arguments, responses, text, thinking."""
    if left is None or right is None:
        return ("only here",)
    found = []
    if _shape(left) != _shape(right):
        found.append("calls")
    else:
        if [_arguments(call) for call in left.calls] != [_arguments(call) for call in right.calls]:
            found.append("arguments")
        if [(call.response, call.is_error) for call in left.calls] != [
            (call.response, call.is_error) for call in right.calls
        ]:
            found.append("responses")
    if left.content.strip() != right.content.strip():
        found.append("text")
    if left.thinking.strip() != right.thinking.strip():
        found.append("thinking")
    return tuple(found)


def _shape(step: StepRecord) -> tuple[str, ...]:
    return tuple(call.name for call in step.calls)


def _arguments(call: CallRecord) -> dict[str, object] | None:
    return None if call.arguments is None else dict(call.arguments)
