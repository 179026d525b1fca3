"""Steps as the server sampled them and the answers to their tool calls: the log's hot path.

Writes the trajectory (if new), turn, step, tool_call and tool_response tables. The gateway waits for its step before it
answers: all statements are built once, and steps that wait together share a transaction (`store/step_writer.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, exists, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from store.database import AnyRow, Log, LogError, insert_new
from store.schema import StepRow, ToolCallRow, ToolResponseRow, TrajectoryRow, TurnRow, storable
from store.tokens import pack_ids, pack_logprobs
from store.turns import message_text
from store.vocabulary import Origin, ToolSource


@dataclass(frozen=True)
class Announcement:
    """What a trajectory is created with if the step is the first that the log hears of it."""

    origin: Origin = Origin.CHAT
    session: str | None = None
    agent: str | None = None
    version: str | None = None

    def row(self, trajectory_id: str) -> dict[str, Any]:
        return asdict(self) | {"id": trajectory_id, "origin": self.origin.value}


@dataclass(frozen=True)
class StepToRecord:
    """One assistant message as the server sampled it."""

    trajectory_id: str
    turn_index: int
    index: int
    """Within its turn."""
    parent_id: int | None
    """The step whose context, with what it sampled, this step's prompt extends; None for a first prompt."""
    user: str
    """The text of the turn's user message; kept when the turn is new."""
    version: str
    new_messages: Sequence[dict[str, Any]]
    tools_hash: str | None
    message: dict[str, Any]
    """content, reasoning, tool_calls=[{id, name, arguments}] with `arguments` the text as sampled."""
    delta_ids: Sequence[int]
    """Ids that the prompt adds to the parent's context and sampled ids; the whole prompt without a parent."""
    sampled_ids: Sequence[int]
    logprobs: Sequence[float]
    context_tokens: int
    """Length of the whole prompt."""
    finish_reason: str | None
    latency_ms: float
    sampling: dict[str, Any]
    trainable: bool = True
    untrainable_reason: str | None = None
    version_spans: Sequence[tuple[str, int]] | None = None
    """(version, sampled tokens) where a swap came between two of them; None: `version` sampled them all."""
    forked: bool = False
    announcement: Announcement | None = None


@dataclass(frozen=True)
class ToolAnswer:
    call_id: str
    response: str
    is_error: bool
    source: ToolSource | str
    latency_ms: float | None = None


def record_step(log: Log, step: StepToRecord) -> int:
    """Records a step with its turn (if new), its tool calls and the tool answers first seen in its new messages.

    One transaction; returns the step's id. Raises LogError, with nothing written, if the ids do not extend the
    parent's context to `context_tokens` (invariant 1), or the trajectory or parent is unknown.
    """
    (outcome,) = record_steps(log, [step])
    if isinstance(outcome, LogError):
        raise outcome
    return outcome


def record_steps(log: Log, steps: Sequence[StepToRecord]) -> list[int | LogError]:
    """Records steps in one transaction; for each its id, or the error because of which nothing of it was written.

    A step that cannot be recorded does not keep the others out. Raises LogError, with nothing written, where the
    database itself fails.
    """
    try:
        with log.writing() as connection:
            return [_record(log, connection, step) for step in steps]
    except LogError as error:
        if isinstance(error.__cause__, OperationalError):
            raise
        if len(steps) == 1:
            return [error]
    outcomes: list[int | LogError] = []
    for step in steps:  # one of them is at fault: each alone
        outcomes += record_steps(log, [step])
    return outcomes


class StepRefused(LogError):
    """A step that does not fit what the log holds."""


def _record(log: Log, connection: Connection, step: StepToRecord) -> int:
    if len(step.sampled_ids) != len(step.logprobs):
        raise StepRefused(
            f"trajectory {step.trajectory_id!r}: {len(step.sampled_ids)} sampled ids, {len(step.logprobs)} logprobs"
        )
    parent = _parent(connection, step)
    if step.announcement is not None:
        row = step.announcement.row(step.trajectory_id)
        connection.execute(insert_new(log, TrajectoryRow.__table__), row)
    try:
        if parent is None or parent.turn_index != step.turn_index:
            turn = {"trajectory_id": step.trajectory_id, "index": step.turn_index, "user": step.user}
            connection.execute(insert_new(log, TurnRow.__table__), turn)
        step_id = connection.execute(_INSERT_STEP, _step_row(step)).scalar_one()
    except IntegrityError as error:
        raise StepRefused(f"there is no trajectory {step.trajectory_id!r} in the log: create it first") from error
    calls = [
        {
            "trajectory_id": step.trajectory_id,
            "step_id": step_id,
            "index": index,
            "call_id": call["id"],
            "name": storable(call["name"])[:128],
            "arguments": call["arguments"],
        }
        for index, call in enumerate(step.message.get("tool_calls") or ())
    ]
    if calls:
        connection.execute(_INSERT_CALLS, calls)
    answers = {m["tool_call_id"]: m for m in step.new_messages if m.get("role") == "tool" and m.get("tool_call_id")}
    if answers:
        _record_client_answers(log, connection, step.trajectory_id, answers)
    return int(step_id)


def record_tool_answers(log: Log, trajectory_id: str, answers: Iterable[ToolAnswer]) -> None:
    """The first answer to a call stays; later ones to the same call are dropped."""
    rows = [
        asdict(answer) | {"trajectory_id": trajectory_id, "source": ToolSource(answer.source).value}
        for answer in answers
    ]
    if not rows:
        return
    with log.writing() as connection:
        connection.execute(insert_new(log, ToolResponseRow.__table__), rows)


_PARENT = select(StepRow.trajectory_id, StepRow.turn_index, StepRow.context_tokens, StepRow.sampled_tokens).where(
    StepRow.id == bindparam("parent_id")
)
_INSERT_STEP = insert(StepRow.__table__).returning(StepRow.id)
_INSERT_CALLS = insert(ToolCallRow.__table__)
_UNANSWERED = select(ToolCallRow.call_id).where(
    ToolCallRow.trajectory_id == bindparam("trajectory_id"),
    ToolCallRow.call_id.in_(bindparam("call_ids", expanding=True)),
    ~exists().where(
        ToolResponseRow.trajectory_id == ToolCallRow.trajectory_id, ToolResponseRow.call_id == ToolCallRow.call_id
    ),
)


def _parent(connection: Connection, step: StepToRecord) -> AnyRow | None:
    """The parent's row, once it is sure that the step's ids go on exactly where the parent's end."""
    parent = None
    before = 0
    if step.parent_id is not None:
        parent = connection.execute(_PARENT, {"parent_id": step.parent_id}).first()
        if parent is None or parent.trajectory_id != step.trajectory_id:
            raise StepRefused(f"trajectory {step.trajectory_id!r} has no step {step.parent_id} to go on from")
        before = parent.context_tokens + parent.sampled_tokens
    if before + len(step.delta_ids) != step.context_tokens:
        raise StepRefused(
            f"trajectory {step.trajectory_id!r}: {before} ids of the parent and {len(step.delta_ids)} new ones are not "
            f"the prompt's {step.context_tokens}: a rewritten history forks from an earlier step"
        )
    return parent


def _step_row(step: StepToRecord) -> dict[str, Any]:
    return {
        "trajectory_id": step.trajectory_id,
        "turn_index": step.turn_index,
        "index": step.index,
        "parent_id": step.parent_id,
        "version": step.version,
        "new_messages": list(step.new_messages),
        "tools_hash": step.tools_hash,
        "message": step.message,
        "delta_ids": pack_ids(step.delta_ids),
        "sampled_ids": pack_ids(step.sampled_ids),
        "logprobs": pack_logprobs(step.logprobs),
        "context_tokens": step.context_tokens,
        "sampled_tokens": len(step.sampled_ids),
        "finish_reason": step.finish_reason,
        "latency_ms": step.latency_ms,
        "sampling": step.sampling,
        "trainable": step.trainable,
        "untrainable_reason": step.untrainable_reason,
        "version_spans": [list(span) for span in step.version_spans] if step.version_spans else None,
        "forked": step.forked,
    }


def _record_client_answers(
    log: Log, connection: Connection, trajectory_id: str, answers: dict[str, dict[str, Any]]
) -> None:
    """Answers to calls of this trajectory that nobody has recorded: all that is known of them is their text."""
    unanswered = connection.scalars(_UNANSWERED, {"trajectory_id": trajectory_id, "call_ids": list(answers)})
    rows = [
        {
            "trajectory_id": trajectory_id,
            "call_id": call_id,
            "response": message_text(answers[call_id].get("content")),
            "is_error": False,
            "source": ToolSource.CLIENT.value,
        }
        for call_id in dict.fromkeys(unanswered)
    ]
    if rows:
        connection.execute(insert_new(log, ToolResponseRow.__table__), rows)
