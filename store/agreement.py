"""Pairs of verdicts on the same item of the same turn: a judge's beside a person's or a check's, and repeated ones.

Reads verdict, item, trajectory, step and review_sample rows, writes none. What the pairs come to is in
reward/agreement.py.

* **A judge** is a name together with the hash of its prompt: with another prompt it is another judge. It is measured by
  its newest verdict of draw 0, whether that counts for rewards or not.
* **Unbiased** pairs stand on turns that were drawn at random for review and that a person has gone through: every item
  judged there has a person's verdict or objection. Whoever corrects only what is wrong makes a judge look bad.
* **Repeats** are verdicts of one judge on the same item of the same turn. A copy out of the cache is none: what stood
  beside the verdicts that count and was said again, word for word and under the same `cache_key`, when it was to count.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, Select, Subquery, and_, case, exists, func, literal, or_, select
from sqlalchemy.orm import aliased

from store.database import AnyRow, Log, LogError
from store.objections import items_called_bad
from store.schema import ItemRow, ReviewSampleRow, StepRow, TrajectoryRow, VerdictRow
from store.standing import is_person_s, stands
from store.vocabulary import Outcome, SampleReason, VerdictSource

_LLM_KIND = "llm"
"""Kind of an item without a check."""

_UNIT = ("trajectory_id", "turn_index", "item_id")


class JudgeId(NamedTuple):
    """A judge: with another prompt it is another one."""

    name: str
    prompt: str | None


class Pair(NamedTuple):
    """What the reference and a judge say of one item of one turn. A tuple: there are hundreds of thousands of them."""

    trajectory_id: str
    turn_index: int
    item_id: int
    reference: Outcome
    judged: Outcome
    judge: str
    prompt: str | None
    kind: str
    """The check's kind, or "llm" for an item without a check."""
    channel: str
    version: str
    """That sampled the turn's first step."""
    unbiased: bool


class Repeat(NamedTuple):
    """Several verdicts of one judge on one item of one turn, copies left out."""

    trajectory_id: str
    judge: str
    prompt: str | None
    kind: str
    channel: str
    passed: int
    failed: int
    unscored: int


class AnchorVerdict(NamedTuple):
    """One of a judge's verdicts on a turn of the anchor set."""

    trajectory_id: str
    turn_index: int
    item_id: int
    judge: str
    prompt: str | None
    outcome: Outcome
    person: Outcome | None
    """What a person says of the item."""
    created_at: datetime


def pairs_with_people(log: Log, *, judge: str | None = None) -> list[Pair]:
    """Every judge's newest verdict beside the newest of a person; code checks and rules are judges here too."""
    people = _newest("people", is_person_s(), stands())
    measured = [VerdictRow.source != VerdictSource.HUMAN.value, VerdictRow.draw == 0]
    unbiased = gone_through(log)
    return [
        _pair(row, (row.trajectory_id, row.turn_index) in unbiased)
        for row in _rows(log, _pairs(people, measured, judge))
    ]


def pairs_with_checks(log: Log, *, judge: str | None = None) -> list[Pair]:
    """Every LLM judge's newest verdict on items that carry a check beside what the check says.

    `unbiased` is True throughout: checks decide every turn, so nobody chose which ones.
    """
    checks = _newest(
        "checks",
        VerdictRow.source == VerdictSource.CODE.value,
        VerdictRow.item_id.in_(select(ItemRow.id).where(ItemRow.kind != _LLM_KIND)),
    )
    measured = [VerdictRow.source == VerdictSource.LLM.value, VerdictRow.draw == 0]
    return [_pair(row, True) for row in _rows(log, _pairs(checks, measured, judge))]


def pairs_of_judges(log: Log, first: JudgeId, second: JudgeId) -> list[Pair]:
    """The second judge's newest verdict beside the first's, on the items of turns that both judged.

    `unbiased` is True throughout: neither saw what the other said. Raises LogError if they are the same.
    """
    if first == second:
        raise LogError(f"a judge agrees with itself: choose another one beside {first.name}")
    reference = _newest("reference", *_is_judge(first), VerdictRow.draw == 0)
    measured = [*_is_judge(second), VerdictRow.draw == 0]
    return [_pair(row, True) for row in _rows(log, _pairs(reference, measured, None))]


def judges_of(log: Log) -> dict[JudgeId, int]:
    """Every LLM judge with the number of its verdicts, the busiest first."""
    count = func.count()
    query = (
        select(VerdictRow.judge, VerdictRow.prompt_hash, count)
        .where(VerdictRow.source == VerdictSource.LLM.value)
        .group_by(VerdictRow.judge, VerdictRow.prompt_hash)
        .order_by(count.desc(), VerdictRow.judge, VerdictRow.prompt_hash)
    )
    return {JudgeId(row[0], row[1]): row[2] for row in _rows(log, query)}


def gone_through(log: Log) -> set[tuple[str, int]]:
    """(trajectory id, turn index) of the randomly drawn turns that a person has gone through."""
    sample = ReviewSampleRow
    by_person = func.max(case((and_(VerdictRow.source == VerdictSource.HUMAN.value, stands()), 1), else_=0))
    spoken = or_(by_person == 1, VerdictRow.item_id.in_(items_called_bad()))
    drawn = select(sample.trajectory_id, sample.turn_index).where(sample.reason == SampleReason.RANDOM.value).distinct()
    turns = drawn.subquery("drawn")
    items = (
        select(VerdictRow.trajectory_id, VerdictRow.turn_index, case((spoken, 1), else_=0).label("spoken"))
        .join(
            turns,
            and_(turns.c.trajectory_id == VerdictRow.trajectory_id, turns.c.turn_index == VerdictRow.turn_index),
        )
        .where(VerdictRow.counts)
        .group_by(VerdictRow.trajectory_id, VerdictRow.turn_index, VerdictRow.item_id)
        .subquery("items")
    )
    query = (
        select(items.c.trajectory_id, items.c.turn_index)
        .group_by(items.c.trajectory_id, items.c.turn_index)
        .having(func.min(items.c.spoken) == 1)
    )
    with log.lookup() as connection:
        return {(row.trajectory_id, row.turn_index) for row in connection.execute(query)}


def repeated_verdicts(log: Log, *, judge: str | None = None) -> list[Repeat]:
    """Items of turns on which an LLM judge spoke more than once."""
    counts = [
        func.sum(case((VerdictRow.outcome == outcome.value, 1), else_=0))
        for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.UNSCORED)
    ]
    spoken = (
        select(
            VerdictRow.trajectory_id,
            VerdictRow.item_id,
            VerdictRow.judge,
            VerdictRow.prompt_hash,
            *(count.label(name) for count, name in zip(counts, ("passed", "failed", "unscored"), strict=True)),
        )
        .where(VerdictRow.source == VerdictSource.LLM.value, ~_is_copy(), *_of_judge(judge))
        .group_by(
            VerdictRow.trajectory_id,
            VerdictRow.turn_index,
            VerdictRow.item_id,
            VerdictRow.judge,
            VerdictRow.prompt_hash,
        )
        .having(func.count() > 1)
        .subquery("spoken")
    )
    query = select(
        spoken.c.trajectory_id,
        spoken.c.judge,
        spoken.c.prompt_hash,
        ItemRow.kind,
        ItemRow.focus_on,
        spoken.c.passed,
        spoken.c.failed,
        spoken.c.unscored,
    ).join(ItemRow, ItemRow.id == spoken.c.item_id)
    return [Repeat._make((*row[:5], *map(int, row[5:]))) for row in _rows(log, query)]


def anchor_verdicts(log: Log, *, judge: str | None = None) -> list[AnchorVerdict]:
    """Everything that LLM judges ever said of the anchor set, in the order they said it, copies left out."""
    people = _newest("people", is_person_s(), stands())
    said = aliased(VerdictRow)
    sample = ReviewSampleRow
    is_anchor = exists().where(
        sample.trajectory_id == VerdictRow.trajectory_id,
        sample.turn_index == VerdictRow.turn_index,
        sample.reason == SampleReason.ANCHOR.value,
    )
    query = (
        select(
            VerdictRow.trajectory_id,
            VerdictRow.turn_index,
            VerdictRow.item_id,
            VerdictRow.judge,
            VerdictRow.prompt_hash,
            VerdictRow.outcome,
            said.outcome.label("person"),
            VerdictRow.created_at,
        )
        .outerjoin(people, _same_unit(people, VerdictRow))
        .outerjoin(said, said.id == people.c.id)
        .where(VerdictRow.source == VerdictSource.LLM.value, ~_is_copy(), is_anchor, *_of_judge(judge))
        .order_by(VerdictRow.id)
    )
    return [
        AnchorVerdict._make((*row[:5], Outcome(row.outcome), row.person and Outcome(row.person), row.created_at))
        for row in _rows(log, query)
    ]


def _pair(row: AnyRow, unbiased: bool) -> Pair:
    return Pair._make((*row[:3], Outcome(row.reference), Outcome(row.judged), *row[5:], unbiased))


def _pairs(reference: Subquery, measured: Sequence[ColumnElement[bool]], judge: str | None) -> Select[*tuple[Any, ...]]:
    """Columns of a `Pair` in its order, `unbiased` left out; `reference` names the reference's row of each item."""
    newest = _newest("measured", *measured, *_of_judge(judge), by_judge=True)
    judged, said = aliased(VerdictRow), aliased(VerdictRow)
    sampled = (
        select(StepRow.version)
        .where(StepRow.trajectory_id == judged.trajectory_id, StepRow.turn_index == judged.turn_index)
        .order_by(StepRow.index, StepRow.id)
        .limit(1)
        .correlate(judged)
        .scalar_subquery()
    )
    return (
        select(
            judged.trajectory_id,
            judged.turn_index,
            judged.item_id,
            said.outcome.label("reference"),
            judged.outcome.label("judged"),
            judged.judge,
            judged.prompt_hash,
            ItemRow.kind,
            ItemRow.focus_on,
            func.coalesce(sampled, TrajectoryRow.version, literal("unknown")).label("version"),
        )
        .select_from(newest)
        .join(reference, and_(*(newest.c[name] == reference.c[name] for name in _UNIT)))
        .join(judged, judged.id == newest.c.id)
        .join(said, said.id == reference.c.id)
        .join(ItemRow, ItemRow.id == judged.item_id)
        .join(TrajectoryRow, TrajectoryRow.id == judged.trajectory_id)
        .order_by(judged.id)
    )


def _newest(name: str, *conditions: ColumnElement[bool], by_judge: bool = False) -> Subquery:
    """The newest verdict of those that meet the conditions, for each item of a turn, or of each judge on it."""
    unit = (VerdictRow.trajectory_id, VerdictRow.turn_index, VerdictRow.item_id)
    groups = (*unit, VerdictRow.judge, VerdictRow.prompt_hash) if by_judge else unit
    return select(*unit, func.max(VerdictRow.id).label("id")).where(*conditions).group_by(*groups).subquery(name)


def _same_unit(newest: Subquery, row: type[VerdictRow]) -> ColumnElement[bool]:
    return and_(*(newest.c[name] == getattr(row, name) for name in _UNIT))


def _is_copy() -> ColumnElement[bool]:
    """It came out of the cache: a judge that is asked anew (`checkloop judge --fresh`) rarely finds the same words."""
    first = aliased(VerdictRow)
    same = ("cache_key", *_UNIT, "judge", "draw", "outcome", "reason", "quote")
    is_copy_of = [getattr(first, name) == getattr(VerdictRow, name) for name in same]
    return exists().where(*is_copy_of, ~first.counts, VerdictRow.counts, first.id < VerdictRow.id).correlate(VerdictRow)


def _is_judge(judge: JudgeId) -> list[ColumnElement[bool]]:
    same_prompt = VerdictRow.prompt_hash == judge.prompt if judge.prompt else VerdictRow.prompt_hash.is_(None)
    return [VerdictRow.source == VerdictSource.LLM.value, VerdictRow.judge == judge.name, same_prompt]


def _of_judge(judge: str | None) -> list[ColumnElement[bool]]:
    return [] if judge is None else [VerdictRow.judge == judge]


def _rows(log: Log, query: Executable) -> Iterator[AnyRow]:
    with log.lookup() as connection:
        yield from connection.execute(query)
