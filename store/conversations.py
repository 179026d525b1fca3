"""What the gateway needs to find a conversation again after a restart: the steps of a session with their messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select

from store.database import Log
from store.schema import StepRow
from store.tokens import unpack_ids
from store.vocabulary import Untrainable


@dataclass(frozen=True)
class StoredStep:
    id: int
    parent_id: int | None
    new_messages: Sequence[dict[str, Any]]
    message: dict[str, Any]
    tools_hash: str | None
    delta_ids: list[int]
    sampled_ids: list[int]
    cut_off: bool
    """Whether its client went away, or its deadline passed, in the middle."""


_STEPS = (
    select(
        StepRow.id,
        StepRow.parent_id,
        StepRow.new_messages,
        StepRow.message,
        StepRow.tools_hash,
        StepRow.delta_ids,
        StepRow.sampled_ids,
        StepRow.untrainable_reason,
    )
    .where(StepRow.trajectory_id == bindparam("trajectory_id"))
    .order_by(StepRow.id)
)
"""Built once: the gateway waits for it where a session is new to it."""


def stored_steps(log: Log, trajectory_id: str) -> list[StoredStep]:
    """The steps of a session in the order they were recorded, parents before children."""
    with log.lookup() as connection:
        rows = connection.execute(_STEPS, {"trajectory_id": trajectory_id})
        return [
            StoredStep(
                row.id,
                row.parent_id,
                row.new_messages,
                row.message,
                row.tools_hash,
                unpack_ids(row.delta_ids),
                unpack_ids(row.sampled_ids),
                row.untrainable_reason == Untrainable.CANCELLED,
            )
            for row in rows
        ]
