"""Verdicts and rewards: appended, never changed. Which verdict counts is decided when they are read."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import exists, insert, select

from store.database import AnyRow, Log, LogError, in_chunks
from store.schema import ItemRow, RewardRow, TrajectoryRow, VerdictRow, now
from store.standing import stands
from store.tallies import kept_tallies
from store.vocabulary import Outcome, VerdictSource


@dataclass(frozen=True)
class Vote:
    """What one judge of a panel said in one draw."""

    judge: str
    draw: int
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """One item's outcome in one turn, and who says so."""

    trajectory_id: str
    turn_index: int
    item_id: int
    item_key: str
    outcome: Outcome
    step_index: int | None
    """The step of the turn at which it first held; None unless PASS."""
    source: VerdictSource
    judge: str
    """Which code, model or person."""
    prompt_hash: str | None
    reason: str
    quote: str
    created_at: datetime | None = None
    """None: now, when it is added."""
    counts: bool = True
    """False for a single vote of a panel, and for a judge that speaks beside the one that counts."""
    draw: int = 0
    share: float | None = None
    """Share of PASS among averaged votes; None: the outcome alone."""
    votes: tuple[Vote, ...] | None = None
    cache_key: str | None = None
    id: int | None = field(default=None, compare=False)
    """Its number in the log; None until it is there. Later verdicts have greater ones."""


@dataclass(frozen=True)
class Reward:
    """Equations 4 and 6 as computed at one moment."""

    trajectory_id: str
    value: float | None
    """None where it could not be judged: excluded, never zero (invariant 3)."""
    turn_values: tuple[float | None, ...]
    fully_passed: bool | None
    unscored: int
    excluded_reason: str | None = None
    made_of: dict[str, Any] | None = field(default=None, compare=False)
    """Checklist revisions, newest verdict, judges and software that it was computed from (`reward.scoring`)."""


def add_verdicts(log: Log, verdicts: Iterable[Verdict]) -> None:
    """Appends all of them or, on LogError, none: a verdict that names a step without being a PASS, an unknown item."""
    rows = []
    for verdict in verdicts:
        if verdict.share is not None and not 0.0 <= verdict.share <= 1.0:
            raise LogError(f"item {verdict.item_key!r}: {verdict.share} is no share of votes, which lies in [0, 1]")
        if verdict.step_index is not None and verdict.outcome != Outcome.PASS:
            raise LogError(
                f"item {verdict.item_key!r} of trajectory {verdict.trajectory_id!r} is {verdict.outcome}, yet held "
                f"first at step {verdict.step_index}: only a PASS has a step"
            )
        row = asdict(verdict) | {"outcome": Outcome(verdict.outcome).value, "created_at": verdict.created_at or now()}
        row["source"] = VerdictSource(verdict.source).value
        if verdict.votes is not None:
            row["votes"] = [asdict(vote) | {"outcome": Outcome(vote.outcome).value} for vote in verdict.votes]
        del row["item_key"], row["id"]
        rows.append(row)
    if not rows:
        return
    with log.writing() as connection, kept_tallies(connection, [row["trajectory_id"] for row in rows]):
        connection.execute(insert(VerdictRow.__table__), rows)


def verdicts_of(log: Log, trajectory_ids: Iterable[str], *, all_rows: bool = False) -> dict[str, list[Verdict]]:
    """The verdict that counts for each (turn, item): a person's newest, else the newest of those with `counts`; in
    order of turn and item.

    With `all_rows`, every verdict in the order it was said. What a person took back, and trajectories without a
    verdict, are left out.
    """
    query = select(VerdictRow.__table__, ItemRow.key.label("item_key")).join(ItemRow, ItemRow.id == VerdictRow.item_id)
    said: dict[str, list[Verdict]] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(trajectory_ids))):
            of_chunk = query.where(VerdictRow.trajectory_id.in_(chunk), stands()).order_by(VerdictRow.id)
            for row in connection.execute(of_chunk):
                said.setdefault(row.trajectory_id, []).append(_verdict(row))
    return said if all_rows else {name: winning(verdicts) for name, verdicts in said.items()}


def verdicts_by_key(log: Log, cache_keys: Iterable[str]) -> dict[str, list[Verdict]]:
    """What LLM judges decided under each cache key, in the order in which it was said; UNSCORED decides nothing."""
    said: dict[str, list[Verdict]] = {}
    query = select(VerdictRow.__table__, ItemRow.key.label("item_key")).join(ItemRow, ItemRow.id == VerdictRow.item_id)
    query = query.where(
        VerdictRow.source == VerdictSource.LLM.value, VerdictRow.outcome != Outcome.UNSCORED.value
    ).order_by(VerdictRow.id)
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(cache_keys))):
            for row in connection.execute(query.where(VerdictRow.cache_key.in_(chunk))):
                said.setdefault(row.cache_key, []).append(_verdict(row))
    return said


def winning(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Of verdicts in the order they were said, the one that wins for each trajectory, turn and item."""
    counts: dict[tuple[str, int, int], Verdict] = {}
    for verdict in verdicts:
        if not verdict.counts:
            continue
        key = (verdict.trajectory_id, verdict.turn_index, verdict.item_id)
        before = counts.get(key)
        if before is None or before.source != VerdictSource.HUMAN or verdict.source == VerdictSource.HUMAN:
            counts[key] = verdict
    return [counts[key] for key in sorted(counts)]


def passes_by_kind(log: Log, trajectory_ids: Iterable[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """By trajectory and kind of item (the check's kind, "llm" without one): items passed, items passed or failed.

    Of the verdicts that win; trajectories without any are left out.
    """
    found = verdicts_of(log, trajectory_ids)
    items = sorted({verdict.item_id for said in found.values() for verdict in said})
    kinds: dict[int, str] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(items):
            kinds |= dict(connection.execute(select(ItemRow.id, ItemRow.kind).where(ItemRow.id.in_(chunk))).all())
    passes: dict[str, dict[str, tuple[int, int]]] = {}
    for name, said in found.items():
        for verdict in said:
            if verdict.outcome is not Outcome.UNSCORED:
                of_trajectory = passes.setdefault(name, {})
                passed, scored = of_trajectory.get(kinds[verdict.item_id], (0, 0))
                of_trajectory[kinds[verdict.item_id]] = (passed + (verdict.outcome is Outcome.PASS), scored + 1)
    return passes


def judged_trajectories(log: Log, *, batch: str | None = None) -> list[str]:
    """Ids of the trajectories that have a verdict or a reward; of one batch, or of the whole log.

    Those of one scenario come together, so that who reads them in chunks reads each scenario about once.
    """
    by_verdict = exists().where(VerdictRow.trajectory_id == TrajectoryRow.id)
    by_reward = exists().where(RewardRow.trajectory_id == TrajectoryRow.id)
    query = select(TrajectoryRow.id).where(by_verdict | by_reward)
    if batch is not None:
        query = query.where(TrajectoryRow.batch == batch)
    with log.lookup() as connection:
        return list(connection.scalars(query.order_by(TrajectoryRow.scenario_hash, TrajectoryRow.id)))


def add_rewards(log: Log, rewards: Iterable[Reward]) -> None:
    """Appends all of them or, on LogError (a reward that is no number), none."""
    rows = []
    for reward in rewards:
        values = [v for v in (reward.value, *reward.turn_values) if v is not None]
        if not all(math.isfinite(v) for v in values):
            raise LogError(f"the reward of trajectory {reward.trajectory_id!r} is no finite number: {values}")
        rows.append(asdict(reward) | {"turn_values": list(reward.turn_values)})
    if not rows:
        return
    with log.writing() as connection:
        connection.execute(insert(RewardRow.__table__), rows)


def rewards_of(log: Log, trajectory_ids: Iterable[str]) -> dict[str, Reward]:
    """The newest reward of each trajectory; those without one are left out."""
    rewards: dict[str, Reward] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(list(dict.fromkeys(trajectory_ids))):
            query = select(RewardRow.__table__).where(RewardRow.trajectory_id.in_(chunk)).order_by(RewardRow.id)
            for row in connection.execute(query):
                rewards[row.trajectory_id] = Reward(
                    trajectory_id=row.trajectory_id,
                    value=row.value,
                    turn_values=tuple(row.turn_values),
                    fully_passed=row.fully_passed,
                    unscored=row.unscored,
                    excluded_reason=row.excluded_reason,
                    made_of=row.made_of,
                )
    return rewards


def _verdict(row: AnyRow) -> Verdict:
    votes = None
    if row.votes is not None:
        votes = tuple(Vote(vote["judge"], vote["draw"], Outcome(vote["outcome"])) for vote in row.votes)
    return Verdict(
        trajectory_id=row.trajectory_id,
        turn_index=row.turn_index,
        item_id=row.item_id,
        item_key=row.item_key,
        outcome=Outcome(row.outcome),
        step_index=row.step_index,
        source=VerdictSource(row.source),
        judge=row.judge,
        prompt_hash=row.prompt_hash,
        reason=row.reason,
        quote=row.quote,
        created_at=row.created_at,
        counts=row.counts,
        draw=row.draw,
        share=row.share,
        votes=votes,
        cache_key=row.cache_key,
        id=row.id,
    )
