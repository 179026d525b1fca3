"""A person's say before a tool runs: the graph waits in a LangGraph interrupt until every marked call is decided.

Reads and writes nothing. An interrupt's value is {"calls": [{"id", "name", "arguments"}, …]}; the run goes on with
`Command(resume=as_resume(decisions))`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolCall
from langgraph.types import interrupt

from store.trajectories import ToolAnswer
from store.vocabulary import ToolSource


@dataclass(frozen=True)
class Decision:
    """What a person says to one call. `reason` is told to the policy with a refusal."""

    approved: bool
    reason: str = ""


UNDECIDED = Decision(False, "nobody has decided on it")
"""A call that a person was asked about and did not answer never runs."""


@dataclass(frozen=True)
class WaitingCall:
    """A call that waits for a person's decision."""

    call_id: str
    name: str
    arguments: dict[str, Any]


def ask_person(calls: Sequence[ToolCall]) -> dict[str, Decision]:
    """Call id -> what was decided. Interrupts the graph until then; nobody is asked about no call."""
    if not calls:
        return {}
    asked = [{"id": call["id"], "name": call["name"], "arguments": call["args"]} for call in calls]
    said: dict[str, dict[str, Any]] = interrupt({"calls": asked})
    decided = {call_id: Decision(bool(one["approved"]), str(one["reason"])) for call_id, one in said.items()}
    return {call["id"] or "": decided.get(call["id"] or "", UNDECIDED) for call in calls}


def as_resume(decisions: Mapping[str, Decision]) -> dict[str, dict[str, Any]]:
    """Decisions by call id as an interrupted run takes them."""
    return {call_id: {"approved": one.approved, "reason": one.reason} for call_id, one in decisions.items()}


def refused_by_person(calls: Sequence[ToolCall], decisions: Mapping[str, Decision]) -> list[tuple[str, ToolAnswer]]:
    """(tool name, error answer) for every call that a person did not agree to."""
    refused = []
    for call in calls:
        call_id = call["id"] or ""
        decision = decisions.get(call_id)
        if decision is None or decision.approved:
            continue
        reason = " ".join(decision.reason.split())
        text = "error: the user refused this call" + (f": {reason}" if reason else "")
        refused.append((call["name"], ToolAnswer(call_id, text, True, ToolSource.PERSON, None)))
    return refused
