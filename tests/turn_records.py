"""Builders of turns as they happened, for tests of checks, judges and rewards."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from store.records import CallRecord, ScenarioTurn, StepRecord, TurnRecord

_CALL_IDS = count()


def call(
    name: str, arguments: Mapping[str, Any] | None = None, response: Any = None, *, error: bool = False
) -> CallRecord:
    """A call; `response` is JSON text or a value to dump, {"ok": true} by default."""
    text = response if isinstance(response, str) else json.dumps({"ok": True} if response is None else response)
    return CallRecord(
        call_id=f"call_{next(_CALL_IDS)}", name=name, arguments=arguments or {}, response=text, is_error=error
    )


def malformed(name: str) -> CallRecord:
    return CallRecord(call_id=f"call_{next(_CALL_IDS)}", name=name, arguments=None, response="no JSON", is_error=True)


def unanswered(name: str, arguments: Mapping[str, Any]) -> CallRecord:
    return CallRecord(call_id=f"call_{next(_CALL_IDS)}", name=name, arguments=arguments, response=None)


def turn(
    *steps: Sequence[CallRecord] | str, index: int = 0, trajectory_id: str = "t1", thinking: str = "", user: str = "Hi"
) -> TurnRecord:
    """A turn whose steps are lists of calls or a reply's text."""
    records = []
    for position, step in enumerate(steps):
        if isinstance(step, str):
            records.append(StepRecord(index=position, thinking=thinking, content=step, finish_reason="stop"))
        else:
            records.append(StepRecord(index=position, thinking=thinking, calls=tuple(step), finish_reason="tool_calls"))
    return TurnRecord(trajectory_id=trajectory_id, index=index, user=user, steps=tuple(records))


def reference_turn(spoken: ScenarioTurn, index: int, trajectory_id: str = "reference") -> TurnRecord:
    """The reference dialogue's turn, as if the policy had played it."""
    steps: list[Sequence[CallRecord] | str] = []
    for step in spoken.reference:
        calls = [call(c.name, c.arguments, c.response, error=c.is_error) for c in step.calls]
        steps.append(calls if step.reply is None else step.reply)
    return turn(*steps, index=index, trajectory_id=trajectory_id, user=spoken.user)
