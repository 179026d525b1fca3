"""What is known of judged turns that makes one worth a person's look. Reads verdict, model_call, rating and
review_sample rows, writes none."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Executable, Select, and_, case, exists, func, or_, select
from sqlalchemy.orm import aliased

from store.database import AnyRow, Log
from store.schema import ModelCallRow, RatingRow, ReviewSampleRow, VerdictRow
from store.standing import is_person_s, stands
from store.verdicts import verdicts_of
from store.vocabulary import ModelRole, Outcome, SampleReason, VerdictSource

Turn = tuple[str, int]
"""(trajectory id, turn index)."""


@dataclass
class TurnSignals:
    """Of one judged turn. Shares lie in [0, 1]."""

    panel_shares: list[float] = field(default_factory=list)
    """Share of PASS among the votes on each item that a panel decided."""
    unscored_items: int = 0
    """Items that the LLM judge could not decide."""
    asked_again: int = 0
    """Items on which the LLM judge was asked more often than it gave verdicts: its first answer was no evidence. (The
    modes `step` and `paper` ask more often by their nature.)"""
    contested_shares: list[float] = field(default_factory=list)
    """Share of PASS among all that judges and votes ever said, of each item on which they are not of one mind."""
    passed_against_thumbs_down: float = 0.0
    """Share of items that PASS in a turn on which a person's thumb is down."""
    reviewed: bool = False
    """A person has given a verdict in this turn."""
    drawn: bool = False
    """It is in the random share of an earlier batch."""
    put_up: bool = False
    """It is in an earlier batch for any reason but being an anchor."""


def turn_signals(log: Log) -> dict[Turn, TurnSignals]:
    """Of every turn on which a check, a rule or an LLM gave a verdict that counts, in order of trajectory and turn.

    Asked for in several queries: what is said between two of them is in the next answer.
    """
    by_judge = and_(VerdictRow.source != VerdictSource.HUMAN.value, VerdictRow.counts)
    turns = select(VerdictRow.trajectory_id, VerdictRow.turn_index).where(by_judge).distinct()
    # Sorted here: databases order text differently, and a seed must draw the same turns on each.
    signals: dict[Turn, TurnSignals] = {turn: TurnSignals() for turn in sorted((r[0], r[1]) for r in _rows(log, turns))}
    for row in _rows(log, _newest_uncertain()):
        if (seen := signals.get((row.trajectory_id, row.turn_index))) is not None:
            share = _share(row.share, row.votes)
            if share is not None:
                seen.panel_shares.append(share)
            elif row.outcome == Outcome.UNSCORED.value:
                seen.unscored_items += 1
    for row in _rows(log, _contested()):
        if (seen := signals.get((row.trajectory_id, row.turn_index))) is not None:
            seen.contested_shares.append(int(row.passed) / (int(row.passed) + int(row.failed)))
    _add_asked_again(log, signals)
    _add_thumbs(log, signals)
    for row in _rows(log, turns_reviewed()):
        if (seen := signals.get((row.trajectory_id, row.turn_index))) is not None:
            seen.reviewed = True
    sample = ReviewSampleRow
    for row in _rows(log, select(sample.trajectory_id, sample.turn_index, sample.reason)):
        if (seen := signals.get((row.trajectory_id, row.turn_index))) is not None:
            seen.drawn |= row.reason == SampleReason.RANDOM.value
            seen.put_up |= row.reason != SampleReason.ANCHOR.value
    return signals


def turns_reviewed() -> Select[*tuple[Any, ...]]:
    """(trajectory_id, turn_index) of every turn in which a person gave a verdict that stands."""
    return select(VerdictRow.trajectory_id, VerdictRow.turn_index).where(is_person_s(), stands()).distinct()


def _newest_uncertain() -> Select[*tuple[Any, ...]]:
    """Verdicts of LLM judges that count, are panels' or UNSCORED, and that no later verdict has replaced."""
    later = aliased(VerdictRow)
    replaced = (
        exists()
        .where(
            later.trajectory_id == VerdictRow.trajectory_id,
            later.turn_index == VerdictRow.turn_index,
            later.item_id == VerdictRow.item_id,
            later.counts,
            later.id > VerdictRow.id,
        )
        .correlate(VerdictRow)
    )
    worth_a_look: ColumnElement[bool] = or_(
        VerdictRow.share.is_not(None), VerdictRow.votes.is_not(None), VerdictRow.outcome == Outcome.UNSCORED.value
    )
    by_llm = VerdictRow.source == VerdictSource.LLM.value
    return (
        select(VerdictRow.trajectory_id, VerdictRow.turn_index, VerdictRow.outcome, VerdictRow.share, VerdictRow.votes)
        .where(by_llm, VerdictRow.counts, worth_a_look, ~replaced)
        .order_by(VerdictRow.id)
    )


def _share(share: float | None, votes: list[dict[str, Any]] | None) -> float | None:
    if share is not None or not votes:
        return share
    said = [vote["outcome"] for vote in votes if vote["outcome"] != Outcome.UNSCORED.value]
    return said.count(Outcome.PASS.value) / len(said) if said else None


def _contested() -> Select[*tuple[Any, ...]]:
    passed, failed = (
        func.sum(case((VerdictRow.outcome == outcome.value, 1), else_=0)) for outcome in (Outcome.PASS, Outcome.FAIL)
    )
    return (
        select(VerdictRow.trajectory_id, VerdictRow.turn_index, passed.label("passed"), failed.label("failed"))
        # What a panel came to is left out: its votes stand there by themselves.
        .where(VerdictRow.source != VerdictSource.HUMAN.value, VerdictRow.votes.is_(None))
        .group_by(VerdictRow.trajectory_id, VerdictRow.turn_index, VerdictRow.item_id)
        .having(and_(passed > 0, failed > 0))
        .order_by(func.min(VerdictRow.id))
    )


def _add_asked_again(log: Log, signals: dict[Turn, TurnSignals]) -> None:
    """What each judge was asked, less the verdicts that it gave, for each turn."""
    call = ModelCallRow
    asked = (
        select(
            call.trajectory_id, call.turn_index, call.model, call.prompt_hash, func.sum(call.items).label("questions")
        )
        .where(call.role == ModelRole.JUDGE.value, call.error.is_(None), call.turn_index.is_not(None))
        .group_by(call.trajectory_id, call.turn_index, call.model, call.prompt_hash)
        .subquery("asked")
    )
    given = (
        select(func.count())
        .where(
            VerdictRow.trajectory_id == asked.c.trajectory_id,
            VerdictRow.turn_index == asked.c.turn_index,
            VerdictRow.judge == asked.c.model,
            VerdictRow.prompt_hash == asked.c.prompt_hash,
        )
        .correlate(asked)
        .scalar_subquery()
    )
    query = select(asked.c.trajectory_id, asked.c.turn_index, (asked.c.questions - given).label("again"))
    for row in _rows(log, query):
        found = signals.get((row.trajectory_id, row.turn_index))
        if found is not None and row.again > 0:
            found.asked_again += int(row.again)


def _add_thumbs(log: Log, signals: dict[Turn, TurnSignals]) -> None:
    rating = RatingRow
    newest = select(func.max(rating.id)).group_by(rating.trajectory_id, rating.turn_index)
    down = select(rating.trajectory_id, rating.turn_index).where(rating.id.in_(newest), rating.value == -1)
    turns = {(row.trajectory_id, row.turn_index) for row in _rows(log, down)} & signals.keys()
    verdicts = verdicts_of(log, sorted({trajectory_id for trajectory_id, _ in turns}))
    for trajectory_id, index in turns:
        said = [verdict.outcome for verdict in verdicts.get(trajectory_id, []) if verdict.turn_index == index]
        if said:
            signals[trajectory_id, index].passed_against_thumbs_down = said.count(Outcome.PASS) / len(said)


def _rows(log: Log, query: Executable) -> Iterator[AnyRow]:
    with log.lookup() as connection:
        yield from connection.execute(query)
