"""The branches of a trajectory's history: what was said, and what was said instead of it; what each began with.

Reads the step table. A step whose parent already has another child begins a branch, and so does one without a parent: a
client that rewrites history gets a new root (invariant 1).
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select

from store.database import Log
from store.schema import StepRow
from store.turns import message_text, steps_to

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class Branch:
    steps: tuple[int, ...]
    """Ids of its steps, oldest first; those before it parted are another branch's, too."""
    parts_at: int | None
    """The turn in which it parts from the newest branch; None for that one itself."""

    @property
    def last(self) -> int:
        return self.steps[-1]


@dataclass(frozen=True)
class Opening:
    """What a context began with: the messages of the system, and the tools."""

    turn_index: int
    system: tuple[str, ...]
    tools_hash: str | None
    """Of the tools in OpenAI's form; None where none were offered. The log does not hold their schemas."""


def branches_of(log: Log, trajectory_id: str) -> list[Branch]:
    """The newest first, which is what judges and trainers read; none for a trajectory without a step."""
    columns = (StepRow.id, StepRow.parent_id, StepRow.turn_index, StepRow.index.label("step_index"))
    with log.lookup() as connection:
        query = select(*columns).where(StepRow.trajectory_id == trajectory_id).order_by(StepRow.id)
        rows = list(connection.execute(query))
    parents = {row.parent_id for row in rows}
    branches: list[Branch] = []
    shown: set[int] = set()
    for row in reversed(rows):
        if row.id in parents or row.id in shown:
            continue
        chain = steps_to(rows, row.id)
        newest = set(branches[0].steps) if branches else set()
        apart = next((step.turn_index for step in chain if step.id not in newest), None)
        branches.append(Branch(tuple(step.id for step in chain), apart if branches else None))
        shown.update(branches[-1].steps)
    return branches


def openings_of(log: Log, trajectory_id: str, steps: Collection[int]) -> list[Opening]:
    """Of the steps of a branch, those that go on from nothing: one, or more where the client cut off what it had sent
    before."""
    columns = (StepRow.id, StepRow.turn_index, StepRow.new_messages, StepRow.tools_hash)
    query = select(*columns).where(StepRow.trajectory_id == trajectory_id, StepRow.parent_id.is_(None))
    with log.lookup() as connection:
        return [
            Opening(
                row.turn_index,
                tuple(message_text(m.get("content")) for m in row.new_messages if m.get("role") in SYSTEM_ROLES),
                row.tools_hash,
            )
            for row in connection.execute(query.order_by(StepRow.id))
            if row.id in steps
        ]
