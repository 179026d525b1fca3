"""What people say of a turn with their thumbs: rows beside the verdicts, append-only.

Reads and writes the rating table. A rating is no verdict: it says that a turn was good or bad, not which item held.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, insert, select

from store.database import Log, LogError, in_chunks
from store.schema import RatingRow, TurnRow


class Thumb(StrEnum):
    """A rating as one types it."""

    UP = "up"
    DOWN = "down"
    NONE = "none"
    """Takes it back."""


THUMB_VALUES = {Thumb.UP: 1, Thumb.DOWN: -1, Thumb.NONE: 0}


@dataclass(frozen=True)
class Rating:
    trajectory_id: str
    turn_index: int
    value: int
    """+1 thumbs up, -1 thumbs down, 0 taken back."""
    comment: str
    person: str
    created_at: datetime


def rate_turn(
    log: Log, trajectory_id: str, turn_index: int, value: int, *, comment: str | None = None, person: str
) -> None:
    """Appends a rating; the newest one of a turn counts. Without a comment the thumb keeps the one that its person gave
    before. Raises LogError for a turn that is not in the log, and for a comment on what is taken back."""
    if value not in (-1, 0, 1):
        raise LogError(f"a rating is +1, -1 or 0 (taken back), not {value}")
    if comment and not value:
        raise LogError("a rating that is taken back has no comment")
    if comment is None:
        before = ratings_of(log, [trajectory_id]).get((trajectory_id, turn_index)) if value else None
        comment = before.comment if before is not None and before.person == person else ""
    turn = select(TurnRow.index).where(TurnRow.trajectory_id == trajectory_id, TurnRow.index == turn_index)
    row = {"trajectory_id": trajectory_id, "turn_index": turn_index, "value": value}
    with log.writing() as connection:
        if connection.scalar(turn) is None:
            raise LogError(f"trajectory {trajectory_id!r} has no turn {turn_index} to rate")
        connection.execute(insert(RatingRow.__table__), row | {"comment": comment, "person": person})


def ratings_of(log: Log, trajectory_ids: Iterable[str]) -> dict[tuple[str, int], Rating]:
    """(trajectory id, turn index) -> the newest rating; turns whose rating was taken back are left out."""
    found: dict[tuple[str, int], Rating] = {}
    columns = (
        RatingRow.trajectory_id,
        RatingRow.turn_index,
        RatingRow.value,
        RatingRow.comment,
        RatingRow.person,
        RatingRow.created_at,
    )
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(trajectory_ids))):
            newest = (
                select(func.max(RatingRow.id))
                .where(RatingRow.trajectory_id.in_(chunk))
                .group_by(RatingRow.trajectory_id, RatingRow.turn_index)
            )
            for row in connection.execute(select(*columns).where(RatingRow.id.in_(newest), RatingRow.value != 0)):
                found[row.trajectory_id, row.turn_index] = Rating(**row._asdict())
    return found
