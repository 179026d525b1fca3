"""Who reviews which turn: claims that run out by themselves, and where each person stood in a queue.

Writes review_claim and review_place rows, which are overwritten: they are the state of people at work, no history. A
person has one claim, on the turn that they look at; what they said is in the log from the moment they said it. Where
nobody signs in two people may give one name: there `person` is the name at a browser (`seated`), and each has a claim
and a place of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store.database import Log, LogError
from store.review_queues import Turn, is_logged
from store.schema import ReviewClaimRow, ReviewPlaceRow, VerdictRow
from store.standing import is_person_s, stands

CLAIM_S = 180.0
"""A claim that nobody renews is free again after this many seconds. An open page renews it every minute."""

_AT = "\x1f"
"""Between a name and the browser; no name that is typed has it."""
_LONGEST_NAME = 100
"""Of a name at a browser, so that both fit the column."""
_PACE_SPAN = timedelta(hours=1)
_PAUSE_S = 300.0


@dataclass(frozen=True)
class Claim:
    trajectory_id: str
    turn_index: int
    person: str
    until: datetime

    @property
    def name(self) -> str:
        """Without the browser."""
        return name_of(self.person)


@dataclass(frozen=True)
class Place:
    """Where a person stood in a queue, and the reason that they had begun to write."""

    turn: Turn
    draft: str


@dataclass(frozen=True)
class Pace:
    """How fast a person reviews: turns in which they said something."""

    turns_today: int
    """Since midnight UTC."""
    turns: int
    """Of the sitting: without a pause of over five minutes, at most one hour back."""
    per_hour: float | None
    """Of the sitting; None before its third turn."""


def seated(name: str, browser: str) -> str:
    """Who claims: the name, at a browser where that is known."""
    name = name.replace(_AT, " ")
    return f"{name[:_LONGEST_NAME]}{_AT}{browser}" if browser else name


def name_of(person: str) -> str:
    """The name of whoever claims."""
    return person.partition(_AT)[0]


def claim_turn(log: Log, turn: Turn, *, person: str, at: datetime, queue: str | None = None) -> Claim:
    """Takes a turn for `person` until `at` + CLAIM_S, or renews that, unless somebody else has it. Returns the claim
    that holds, which may be another person's.

    What `person` had before is free again. With `queue` it is also where they stand there from now on. Raises LogError
    for a turn that the log does not have: the claim of `person` stays where it is.
    """
    if not is_logged(log, turn):
        raise LogError(f"turn {turn[1]} of trajectory {turn[0]!r} is not in the log, or not any more: open another one")
    claim = ReviewClaimRow
    values = {"trajectory_id": turn[0], "turn_index": turn[1]}
    changed = {"person": person, "until": at + timedelta(seconds=CLAIM_S)}
    # One statement: of two who ask in the same moment the second one finds the first one's row.
    taken = _upsert(
        log,
        ReviewClaimRow.__table__,
        values,
        changed,
        where=(claim.until <= at) | (claim.person == person),
    )
    with log.writing() as connection:
        connection.execute(taken)
        here = (claim.trajectory_id == turn[0]) & (claim.turn_index == turn[1])
        holder = connection.execute(select(claim.person, claim.until).where(here)).one()
        if holder.person == person:
            connection.execute(delete(claim.__table__).where(claim.person == person, ~here))
            if queue is not None:
                _stand(log, connection, person, queue, turn, at)
    return Claim(*turn, *holder)


def release_turns(log: Log, person: str) -> None:
    """`person` looks at nothing any more."""
    with log.writing() as connection:
        connection.execute(delete(ReviewClaimRow.__table__).where(ReviewClaimRow.person == person))


def claims_of_others(log: Log, person: str, at: datetime) -> list[Claim]:
    """Who else is at work, by name; the same name at another browser is somebody else."""
    claim = ReviewClaimRow
    query = select(claim.trajectory_id, claim.turn_index, claim.person, claim.until).where(
        claim.person != person, claim.until > at
    )
    with log.lookup() as connection:
        return [Claim(*row) for row in connection.execute(query.order_by(claim.person, claim.trajectory_id))]


def place_of(log: Log, person: str, queue: str) -> Place | None:
    """At this browser; where it never was in the queue, where somebody of the same name stood last."""
    row = ReviewPlaceRow
    query = select(row.trajectory_id, row.turn_index, row.draft).where(_of_name(person), row.queue == queue)
    query = query.order_by((row.person == person).desc(), row.moved_at.desc()).limit(1)
    with log.lookup() as connection:
        found = connection.execute(query).first()
    return None if found is None else Place((found[0], found[1]), found[2])


def keep_draft(log: Log, person: str, queue: str, draft: str) -> None:
    """Keeps a reason that is being written, so that it outlives the page. Nothing where no place is known."""
    row = ReviewPlaceRow
    here = (row.person == person) & (row.queue == queue)
    with log.writing() as connection:
        connection.execute(update(row.__table__).where(here).values(draft=draft))


def pace_of(log: Log, person: str, at: datetime) -> Pace:
    verdict = VerdictRow
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    since = min(midnight, at - _PACE_SPAN)
    last = func.max(verdict.created_at)
    query = (
        select(last)
        .where(is_person_s(), verdict.judge == person, verdict.created_at >= since, stands())
        .group_by(verdict.trajectory_id, verdict.turn_index)
        .order_by(last.desc())
    )
    with log.lookup() as connection:
        moments = list(connection.scalars(query))
    return count_pace(moments, at, midnight)


def count_pace(moments: Sequence[datetime], at: datetime, midnight: datetime) -> Pace:
    """`moments`: when each turn was finished, newest first."""
    sitting: list[datetime] = []
    for moment in moments:
        if at - moment > _PACE_SPAN or ((sitting[-1] if sitting else at) - moment).total_seconds() > _PAUSE_S:
            break
        sitting.append(moment)
    per_hour = None
    if len(sitting) > 2:
        seconds = (sitting[0] - sitting[-1]).total_seconds()
        per_hour = 3600 * (len(sitting) - 1) / max(seconds, 1.0)
    return Pace(sum(moment >= midnight for moment in moments), len(sitting), per_hour)


def _stand(log: Log, connection: Connection, person: str, queue: str, turn: Turn, at: datetime) -> None:
    """A place keeps its draft as long as the turn is the same, also from one browser to the next."""
    row = ReviewPlaceRow
    same = (row.person == person) & (row.queue == queue)
    here = same & (row.trajectory_id == turn[0]) & (row.turn_index == turn[1])
    if connection.execute(update(row.__table__).where(here).values(moved_at=at)).rowcount:
        return
    there = _of_name(person) & (row.queue == queue) & (row.trajectory_id == turn[0]) & (row.turn_index == turn[1])
    draft = connection.scalar(select(row.draft).where(there).order_by(row.moved_at.desc()).limit(1)) or ""
    changed = {"trajectory_id": turn[0], "turn_index": turn[1], "draft": draft, "moved_at": at}
    connection.execute(_upsert(log, row.__table__, {"person": person, "queue": queue}, changed))


def _of_name(person: str) -> ColumnElement[bool]:
    """Places of the same name, at whatever browser."""
    row, name = ReviewPlaceRow, name_of(person)
    return or_(row.person == name, row.person.startswith(name[:_LONGEST_NAME] + _AT, autoescape=True))


def _upsert(log: Log, table: Table, key: dict[str, Any], changed: dict[str, Any], where: Any = None) -> Any:
    make = sqlite.insert if log.engine.dialect.name == "sqlite" else postgresql.insert
    return (
        make(table).values(**key, **changed).on_conflict_do_update(index_elements=list(key), set_=changed, where=where)
    )
