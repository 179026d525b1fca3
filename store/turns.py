"""Turns of a trajectory as the judge and the dashboard read them: steps, tool calls and their answers, put together.

Reads the turn, step, tool_call and tool_response tables.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from store.database import AnyRow, Log, LogError, in_chunks
from store.records import CallRecord, StepRecord, TurnRecord
from store.schema import StepRow, ToolCallRow, ToolResponseRow, TurnRow

_STEPS = select(
    StepRow.id,
    StepRow.trajectory_id,
    StepRow.turn_index,
    StepRow.index.label("step_index"),
    StepRow.parent_id,
    StepRow.new_messages,
    StepRow.message,
    StepRow.finish_reason,
)
_CALLS = select(
    ToolCallRow.step_id,
    ToolCallRow.call_id,
    ToolCallRow.name,
    ToolCallRow.arguments,
    ToolResponseRow.response,
    ToolResponseRow.is_error,
    ToolResponseRow.source,
    ToolResponseRow.latency_ms,
).outerjoin(
    ToolResponseRow,
    (ToolResponseRow.trajectory_id == ToolCallRow.trajectory_id) & (ToolResponseRow.call_id == ToolCallRow.call_id),
)


def get_turns(log: Log, trajectory_id: str, last: int | None = None) -> list[TurnRecord]:
    """The turns of one trajectory; empty if it has no step yet. `last` ends another branch than the main one
    (`store.branches`). See `turns_of`."""
    ends = {} if last is None else {trajectory_id: last}
    return turns_of(log, [trajectory_id], ends).get(trajectory_id, [])


def turns_of(
    log: Log, trajectory_ids: Iterable[str], ends: Mapping[str, int] | None = None
) -> dict[str, list[TurnRecord]]:
    """The turns of each trajectory in order, along its main branch, or along the one that the step in `ends` ends;
    trajectories without a step are left out.

    The main branch is the chain of parents of the last step. Where a client cut off the beginning of a history, that
    chain begins in the middle: the turns before it come from the branch that was current then.
    """
    wanted = list(dict.fromkeys(trajectory_ids))
    steps: dict[str, list[AnyRow]] = {}
    calls: dict[int, list[CallRecord]] = {}
    users: dict[tuple[str, int], str] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(wanted):
            for row in connection.execute(_STEPS.where(StepRow.trajectory_id.in_(chunk)).order_by(StepRow.id)):
                steps.setdefault(row.trajectory_id, []).append(row)
            of_chunk = _CALLS.where(ToolCallRow.trajectory_id.in_(chunk)).order_by(
                ToolCallRow.step_id, ToolCallRow.index
            )
            for row in connection.execute(of_chunk):
                calls.setdefault(row.step_id, []).append(_call_record(row))
            turns = select(TurnRow.trajectory_id, TurnRow.index.label("turn_index"), TurnRow.user)
            for row in connection.execute(turns.where(TurnRow.trajectory_id.in_(chunk))):
                users[row.trajectory_id, row.turn_index] = row.user
    last = ends or {}
    return {name: _turns(name, steps_to(steps[name], last.get(name)), calls, users) for name in wanted if name in steps}


def step_counts_of(log: Log, trajectory_ids: Iterable[str]) -> dict[str, list[int]]:
    """For each trajectory the number of steps of each turn that it reached, in order; see `turns_of`.

    Reads no message, so it is much cheaper than `turns_of`. Trajectories without a step are left out.
    """
    columns = (StepRow.id, StepRow.trajectory_id, StepRow.turn_index, StepRow.index.label("step_index"))
    query = select(*columns, StepRow.parent_id)
    steps: dict[str, list[AnyRow]] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(trajectory_ids))):
            for row in connection.execute(query.where(StepRow.trajectory_id.in_(chunk)).order_by(StepRow.id)):
                steps.setdefault(row.trajectory_id, []).append(row)
    counts: dict[str, list[int]] = {}
    for name, rows in steps.items():
        last = {row.turn_index: row.step_index + 1 for row in steps_to(rows)}
        counts[name] = [last[turn] for turn in sorted(last)]
    return counts


def _turns(
    trajectory_id: str,
    branch: Sequence[AnyRow],
    calls: dict[int, list[CallRecord]],
    users: dict[tuple[str, int], str],
) -> list[TurnRecord]:
    by_turn: dict[int, list[StepRecord]] = {}
    said: dict[int, str] = {}
    for row in branch:
        if row.turn_index not in by_turn:
            # A fork may have begun the turn with another message than the first branch did.
            texts = [message_text(m.get("content")) for m in row.new_messages if m.get("role") == "user"]
            said[row.turn_index] = texts[-1] if texts else users[trajectory_id, row.turn_index]
        by_turn.setdefault(row.turn_index, []).append(
            StepRecord(
                index=row.step_index,
                thinking=row.message.get("reasoning") or "",
                content=row.message.get("content") or "",
                calls=tuple(calls.get(row.id, ())),
                finish_reason=row.finish_reason,
            )
        )
    return [
        TurnRecord(trajectory_id=trajectory_id, index=turn, user=said[turn], steps=tuple(records))
        for turn, records in sorted(by_turn.items())
    ]


def steps_to(steps: Sequence[AnyRow], last: int | None = None) -> list[AnyRow]:
    """Of a trajectory's steps in order of id those of the branch that `last` ends (None: the newest); see `turns_of`.

    Raises LogError where `last` is none of them.
    """
    by_id = {row.id: row for row in steps}
    branch: list[AnyRow] = []
    row: AnyRow | None = steps[-1] if last is None else by_id.get(last)
    if row is None:
        raise LogError(f"step {last} is none of this trajectory")
    while row is not None:
        branch.append(row)
        if row.parent_id is not None:
            row = by_id[row.parent_id]
        else:
            start = (row.turn_index, row.step_index)
            row = next(
                (r for r in reversed(steps) if r.id < branch[-1].id and (r.turn_index, r.step_index) < start), None
            )
    return branch[::-1]


def _call_record(row: AnyRow) -> CallRecord:
    return CallRecord(
        call_id=row.call_id,
        name=row.name,
        arguments=_parse_arguments(row.arguments),
        response=row.response,
        is_error=bool(row.is_error),
        source=row.source,
        latency_ms=row.latency_ms,
    )


def _parse_arguments(text: str) -> dict[str, Any] | None:
    """None where the policy wrote no JSON object: that is the policy's own doing, and checks treat it as such."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def message_text(content: Any) -> str:
    """The text of an OpenAI message's content: a string, or a list of parts of which the text ones count."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
