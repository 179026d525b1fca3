"""Queues of judged turns for people: which turns a filter holds, in which order, which one comes next.

Reads the log, writes nothing; who has which turn is in store/review_claims.py. A queue is a filter, not a list: turns
join it as they are judged. Each answer is one query that begins at the rows of the narrowest index (a batch's, the
thumbs', an item's, else the newest trajectories) and stops at its LIMIT, whatever the log's size.

* The outcome of the filter is what *judges* say (their newest verdict that counts), so that a turn stays where it is
  when a person says otherwise.
* A turn is open while one of its judged items (that the filter asks for) has no person's verdict that stands, and
  nobody called the item bad or left it out of the checklist.
* Turns that were put up come in the order of their batches, all others newest trajectory first.
"""

import hashlib
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, literal_column, or_, select, tuple_
from sqlalchemy.orm import aliased

from store.database import Log
from store.objections import items_called_bad
from store.schema import (
    ItemRow,
    ItemTallyRow,
    RateTallyRow,
    RatingRow,
    ReviewClaimRow,
    ReviewSampleRow,
    ScenarioRow,
    TrajectoryRow,
    TurnRow,
    VerdictRow,
)
from store.standing import is_person_s, stands
from store.vocabulary import Outcome, SampleReason, VerdictSource

_LONGEST_NAME = 255
_RARE = 20_000
"""Verdicts of a kind of item, up to which a walk begins at them and not at the newest trajectory."""

Turn = tuple[str, int]
"""(trajectory id, turn index)."""


@dataclass(frozen=True)
class QueueFilter:
    """Which judged turns; None means any."""

    whys: tuple[SampleReason, ...] = ()
    """Put up for one of these reasons: the random audit share, uncertain, disputed, an anchor (`checkloop judge
    sample`)."""
    batch: str | None = None
    """Put up in this batch."""
    version: str | None = None
    domain: str | None = None
    kind: str | None = None
    """An item of this kind is judged: its check's, or "llm"."""
    item_id: int | None = None
    outcome: Outcome | None = None
    """A judge says so of an item; with `item_id` of that one, with `kind` of one of these."""
    thumbs_down: bool = False

    @property
    def name(self) -> str:
        """The filter in its one spelling, at most 255 characters: "outcome=FAIL version=v0001", or "all"."""
        set_ones = {field.name: getattr(self, field.name) for field in fields(self)}
        set_ones["whys"] = ",".join(sorted(self.whys))
        name = " ".join(f"{name}={value}" for name, value in sorted(set_ones.items()) if value) or "all"
        if len(name) <= _LONGEST_NAME:
            return name
        return f"{name[: _LONGEST_NAME - 13]} {hashlib.sha256(name.encode()).hexdigest()[:12]}"

    @property
    def is_sampled(self) -> bool:
        return bool(self.whys) or self.batch is not None


@dataclass(frozen=True)
class JudgedItem:
    id: int
    key: str
    turn_index: int
    scenario: str


def any_judged(log: Log) -> bool:
    """Anything was ever judged."""
    with log.lookup() as connection:
        return connection.execute(select(VerdictRow.id).limit(1)).first() is not None


def is_logged(log: Log, turn: Turn) -> bool:
    """The log has this turn (still)."""
    query = select(TurnRow.index).where(TurnRow.trajectory_id == turn[0], TurnRow.index == turn[1])
    with log.lookup() as connection:
        return connection.execute(query).first() is not None


def judged_kinds(log: Log) -> tuple[str, ...]:
    """The kinds of items that anything was ever said of, by name."""
    kind = RateTallyRow.kind
    with log.lookup() as connection:
        return tuple(connection.scalars(select(kind).distinct().order_by(kind)))


def judged_items(log: Log, *, domain: str, kind: str | None = None, limit: int = 500) -> list[JudgedItem]:
    """The items of a domain's scenarios (of a kind) that anything was said of, by scenario and turn."""
    item, tally = ItemRow, ItemTallyRow
    query = select(item.id, item.key, item.turn_index, ScenarioRow.name)
    query = query.join(ScenarioRow, ScenarioRow.hash == item.scenario_hash).where(ScenarioRow.domain == domain)
    query = query.where(exists().where(tally.item_id == item.id))
    if kind is not None:
        query = query.where(item.kind == kind)
    query = query.order_by(ScenarioRow.name, item.scenario_hash, item.turn_index, item.id).limit(limit)
    with log.lookup() as connection:
        return [JudgedItem(*row) for row in connection.execute(query)]


def find_turn(
    log: Log,
    wanted: QueueFilter,
    *,
    person: str,
    at: datetime,
    after: Turn | None = None,
    backwards: bool = False,
    only_open: bool = True,
) -> Turn | None:
    """The first turn of the queue after `after` (or before it) that nobody but `person` has at `at`; None at its end.

    `after` need not be in the queue (the filter may be another one by now). With `only_open` False also turns that are
    done.
    """
    with log.lookup() as connection:
        query = _queue(wanted, connection, person, at, only_open=only_open)
        if wanted.is_sampled:
            query = _walk_samples(query, wanted, after, backwards=backwards)
        else:
            query = _walk(query, connection, after, backwards=backwards)
        row = connection.execute(query.limit(1)).first()
    return None if row is None else (row[0], row[1])


def count_open(log: Log, wanted: QueueFilter, *, person: str, at: datetime, most: int = 200) -> int:
    """How many open turns the queue has for `person`; counts no further than `most`."""
    with log.lookup() as connection:
        query = _queue(wanted, connection, person, at, only_open=True)
        if wanted.is_sampled:
            query = _walk_samples(query, wanted, None, backwards=False)
        return connection.scalar(select(func.count()).select_from(query.order_by(None).limit(most).subquery())) or 0


def list_open(log: Log, wanted: QueueFilter, *, person: str, at: datetime, limit: int) -> list[tuple[Turn, str]]:
    """The first open turns in the queue's order, each with its user message."""
    with log.lookup() as connection:
        query = _queue(wanted, connection, person, at, only_open=True).add_columns(TurnRow.user)
        if wanted.is_sampled:
            query = _walk_samples(query, wanted, None, backwards=False)
        else:
            query = _walk(query, connection, None, backwards=False)
        return [((row[0], row[1]), row[2]) for row in connection.execute(query.limit(limit))]


def _queue(
    wanted: QueueFilter, connection: Connection, person: str, at: datetime, *, only_open: bool
) -> Select[*tuple[Any, ...]]:
    """Columns trajectory_id and turn_index, in no order yet."""
    claim = ReviewClaimRow
    taken = exists().where(
        claim.trajectory_id == TurnRow.trajectory_id,
        claim.turn_index == TurnRow.index,
        claim.person != person,
        claim.until > at,
    )
    key = (TurnRow.trajectory_id.label("trajectory_id"), TurnRow.index.label("turn_index"))
    narrow = wanted.is_sampled or wanted.thumbs_down or wanted.item_id is not None
    rare = wanted.kind is not None and _verdicts_of_kind(connection, wanted.kind) <= _RARE
    narrow |= wanted.outcome is Outcome.UNSCORED or rare
    # Where no filter is narrow, the walk begins at the newest trajectory; an expression in place of its key keeps
    # SQLite, which knows no sizes, from reading all turns first and sorting them.
    name = TrajectoryRow.id if narrow else TrajectoryRow.id.concat("")
    query = select(*key).join_from(TrajectoryRow, TurnRow, TurnRow.trajectory_id == name)
    if wanted.version is not None:
        query = query.where(TrajectoryRow.version == wanted.version)
    if wanted.domain is not None:
        of_domain = select(ScenarioRow.hash).where(ScenarioRow.domain == wanted.domain)
        query = query.where(TrajectoryRow.scenario_hash.in_(of_domain))
    if rare:
        of_kind = select(VerdictRow.trajectory_id, VerdictRow.turn_index)
        query = query.where(_turn_in(of_kind.where(VerdictRow.item_id.in_(_items_of_kind(str(wanted.kind))))))
    if wanted.thumbs_down:
        query = query.where(_turn_in(_thumbs_down()))
    if wanted.item_id is not None:
        of_item = select(VerdictRow.trajectory_id, VerdictRow.turn_index).where(VerdictRow.item_id == wanted.item_id)
        query = query.where(_turn_in(of_item))
    if wanted.outcome is Outcome.UNSCORED:
        unscored = VerdictRow.outcome == literal_column(f"'{Outcome.UNSCORED.value}'")
        query = query.where(_turn_in(select(VerdictRow.trajectory_id, VerdictRow.turn_index).where(unscored)))
    return query.where(_judged(wanted, only_open=only_open), ~taken)


def _walk(
    query: Select[*tuple[Any, ...]], connection: Connection, after: Turn | None, *, backwards: bool
) -> Select[*tuple[Any, ...]]:
    """Newest trajectory first, its turns in order; beyond `after`."""
    begun, name, index = TrajectoryRow.created_at, TrajectoryRow.id, TurnRow.index
    order = (begun.asc(), name.asc(), index.desc()) if backwards else (begun.desc(), name.desc(), index.asc())
    query = query.order_by(*order)
    if after is None:
        return query
    moment = connection.scalar(select(begun).where(name == after[0]))
    if moment is None:  # the trajectory was deleted meanwhile: from the beginning
        return query
    if backwards:
        elsewhere = or_(begun > moment, and_(begun == moment, name > after[0]))
        return query.where(begun >= moment, or_(elsewhere, and_(name == after[0], index < after[1])))
    elsewhere = or_(begun < moment, and_(begun == moment, name < after[0]))
    return query.where(begun <= moment, or_(elsewhere, and_(name == after[0], index > after[1])))


def _walk_samples(
    query: Select[*tuple[Any, ...]], wanted: QueueFilter, after: Turn | None, *, backwards: bool
) -> Select[*tuple[Any, ...]]:
    """In the order in which they were put up; beyond `after`."""
    sample = ReviewSampleRow
    place = func.min(sample.id)
    wished: list[ColumnElement[bool]] = []
    if wanted.whys:
        wished.append(sample.reason.in_([why.value for why in wanted.whys]))
    if wanted.batch is not None:
        wished.append(sample.batch == wanted.batch)
    chosen = select(sample.trajectory_id, sample.turn_index, place.label("place")).where(*wished)
    chosen = chosen.group_by(sample.trajectory_id, sample.turn_index)
    places = chosen.subquery("places")
    same = and_(places.c.trajectory_id == TurnRow.trajectory_id, places.c.turn_index == TurnRow.index)
    query = query.join(places, same).order_by(places.c.place.desc() if backwards else places.c.place)
    if after is None:
        return query
    here = select(place).where(*wished, sample.trajectory_id == after[0], sample.turn_index == after[1])
    at = here.scalar_subquery()
    return query.where(places.c.place < at if backwards else places.c.place > func.coalesce(at, 0))


def _items_of_kind(kind: str) -> Select[int]:
    return select(ItemRow.id).where(ItemRow.kind == kind)


def _verdicts_of_kind(connection: Connection, kind: str) -> int:
    """Those that count, from the sums that are kept with them."""
    row = RateTallyRow
    sums = func.sum(row.passed + row.failed + row.unscored)
    return int(connection.scalar(select(sums).where(row.kind == kind)) or 0)


def _turn_in(turns: Select[*tuple[Any, ...]]) -> ColumnElement[bool]:
    return tuple_(TurnRow.trajectory_id, TurnRow.index).in_(turns)


def _thumbs_down() -> Select[*tuple[Any, ...]]:
    rating, later = RatingRow, aliased(RatingRow)
    replaced = exists().where(
        later.trajectory_id == rating.trajectory_id, later.turn_index == rating.turn_index, later.id > rating.id
    )
    return select(rating.trajectory_id, rating.turn_index).where(rating.value == -1, ~replaced)


def _judged(wanted: QueueFilter, *, only_open: bool) -> ColumnElement[bool]:
    """A judge's verdict that counts stands in the turn (of the item, with the outcome); open: nobody settled it."""
    judged = aliased(VerdictRow)
    conditions = [
        judged.trajectory_id == TurnRow.trajectory_id,
        judged.turn_index == TurnRow.index,
        judged.source != VerdictSource.HUMAN.value,
        judged.counts,
    ]
    if wanted.item_id is not None:
        # By its turn, not by its item: the turn has a few verdicts, the item thousands.
        conditions.append(judged.item_id + 0 == wanted.item_id)
    if wanted.kind is not None:
        conditions.append((judged.item_id + 0).in_(_items_of_kind(wanted.kind)))
    if wanted.outcome is not None:
        later = aliased(VerdictRow)
        replaced = exists().where(
            *_same_item(later, judged), later.source != VerdictSource.HUMAN.value, later.counts, later.id > judged.id
        )
        conditions += [judged.outcome == wanted.outcome.value, ~replaced]
    if only_open:
        said = aliased(VerdictRow)
        by_person = exists().where(*_same_item(said, judged), is_person_s(said), stands(said))
        conditions += [~by_person, judged.item_id.not_in(items_called_bad())]
    return exists(select(1).where(*conditions).correlate(TurnRow))


def _same_item(one: type[VerdictRow], other: type[VerdictRow]) -> list[ColumnElement[bool]]:
    return [one.trajectory_id == other.trajectory_id, one.turn_index == other.turn_index, one.item_id == other.item_id]
