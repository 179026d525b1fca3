"""Turns put up for review: batches, the anchor set, and what is still open of them.

Reads and writes review_sample rows, append-only, in the order in which they are to be reviewed. How turns are chosen is
in reward/sampling.py, what is known of them in store/review_signals.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from store.checklists import current_checklists
from store.database import Log, LogError, in_chunks
from store.records import Scenario
from store.schema import ReviewSampleRow, ScenarioRow, TrajectoryRow, TurnRow
from store.verdicts import verdicts_of
from store.vocabulary import SampleReason, VerdictSource

ANCHORS = "anchors"
"""The batch of the anchor set, which is fixed once."""


@dataclass(frozen=True)
class ReviewSample:
    trajectory_id: str
    turn_index: int
    reason: SampleReason
    score: float | None = None
    """How uncertain or disputed, in (0, 1]; None for the random share and anchors."""


@dataclass(frozen=True)
class ReviewBatch:
    name: str
    turns: int
    created_at: datetime


@dataclass(frozen=True)
class QueuedTurn:
    """A turn of a batch, and which items of its current checklists no person has judged yet."""

    sample: ReviewSample
    user: str
    open_items: tuple[str, ...]
    items: int

    @property
    def done(self) -> bool:
        return not self.open_items


def add_review_batch(log: Log, name: str, samples: Sequence[ReviewSample]) -> None:
    """Puts turns up for review, in this order. Raises LogError, with nothing written, for a batch that is there, a name
    that does not fit, a turn that stands twice, an unknown trajectory; and for anchors where there are some."""
    name = name.strip()
    if not 0 < len(name) <= 64:
        raise LogError(f"a batch of reviews needs a name of 1 to 64 characters, not {name!r}")
    turns = [(sample.trajectory_id, sample.turn_index) for sample in samples]
    if len(set(turns)) != len(turns):
        twice = next(turn for turn in turns if turns.count(turn) > 1)
        raise LogError(f"turn {twice[1]} of trajectory {twice[0]!r} stands twice in batch {name!r}")
    if not samples:
        return
    rows = [
        {
            "trajectory_id": sample.trajectory_id,
            "turn_index": sample.turn_index,
            "reason": SampleReason(sample.reason).value,
            "batch": name,
            "score": sample.score,
        }
        for sample in samples
    ]
    with log.writing() as connection:
        before = _batches(connection, name)
        if before and name == ANCHORS:
            raise LogError(
                f"the anchor set was fixed on {before[0].created_at:%Y-%m-%d} with {before[0].turns} turns: it stays, "
                "for a judge's drift is seen on turns that do not change"
            )
        if before:
            raise LogError(f"there is a batch {name!r} already, with {before[0].turns} turns: choose another name")
        connection.execute(insert(ReviewSampleRow.__table__), rows)


def review_batches(log: Log) -> list[ReviewBatch]:
    """Oldest first; the anchor set is one."""
    with log.lookup() as connection:
        return _batches(connection)


def any_put_up(log: Log, reasons: Sequence[SampleReason]) -> bool:
    """Any turn, for one of these reasons."""
    row = ReviewSampleRow
    query = select(row.id).where(row.reason.in_([reason.value for reason in reasons])).limit(1)
    with log.lookup() as connection:
        return connection.execute(query).first() is not None


def samples_of(log: Log, batch: str) -> list[ReviewSample]:
    """In the order in which they are to be reviewed. Raises LogError for an unknown batch."""
    row = ReviewSampleRow
    query = select(row.trajectory_id, row.turn_index, row.reason, row.score).where(row.batch == batch).order_by(row.id)
    with log.lookup() as connection:
        found = [ReviewSample(r[0], r[1], SampleReason(r[2]), r[3]) for r in connection.execute(query)]
    if not found:
        raise LogError(f"there is no batch {batch!r} of reviews: `checkloop judge sample` makes one")
    return found


def review_queue(log: Log, batch: str) -> list[QueuedTurn]:
    """A batch in its order. An item is open while its checklist has it and no person has judged it in this turn; an
    item that was called bad is not. Raises LogError for an unknown batch."""
    samples = samples_of(log, batch)
    queue: list[QueuedTurn] = []
    for chunk in in_chunks(samples):
        names = list(dict.fromkeys(sample.trajectory_id for sample in chunk))
        with log.lookup() as connection:
            users = _users(connection, names)
            digests = _scenario_hashes(connection, names)
            scenarios = _scenarios(connection, digests.values())
        checklists = current_checklists(log, scenarios)
        judged = {
            (name, verdict.turn_index, verdict.item_key)
            for name, verdicts in verdicts_of(log, names).items()
            for verdict in verdicts
            if verdict.source is VerdictSource.HUMAN
        }
        for sample in chunk:
            name, turn = sample.trajectory_id, sample.turn_index
            variants_T = checklists.get(digests.get(name, ""), [])
            variants = variants_T[turn] if turn < len(variants_T) else []
            keys = tuple(dict.fromkeys(item.id for checklist in variants for item in checklist.items))
            open_items = tuple(key for key in keys if (name, turn, key) not in judged)
            queue.append(QueuedTurn(sample, users.get((name, turn), ""), open_items, len(keys)))
    return queue


def _batches(connection: Connection, name: str | None = None) -> list[ReviewBatch]:
    row = ReviewSampleRow
    query = select(row.batch, func.count(), func.min(row.created_at)).group_by(row.batch).order_by(func.min(row.id))
    if name is not None:
        query = query.where(row.batch == name)
    return [ReviewBatch(*found) for found in connection.execute(query)]


def _users(connection: Connection, names: Sequence[str]) -> dict[tuple[str, int], str]:
    query = select(TurnRow.trajectory_id, TurnRow.index, TurnRow.user).where(TurnRow.trajectory_id.in_(names))
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def _scenario_hashes(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    query = select(TrajectoryRow.id, TrajectoryRow.scenario_hash).where(TrajectoryRow.id.in_(names))
    return {name: digest for name, digest in connection.execute(query) if digest is not None}


def _scenarios(connection: Connection, digests: Iterable[str]) -> list[Scenario]:
    query = select(ScenarioRow.document).where(ScenarioRow.hash.in_(set(digests)))
    return [Scenario.model_validate(document) for document in connection.scalars(query)]
