"""Who says what about a turn, by which checklist, at what cost, and the reward that follows (docs/judging.md)."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base, BigKey, now

_SAID = "source = 'human'"
_UNSCORED = "outcome = 'UNSCORED'"


def _where(name: str, condition: str, *columns: str) -> Index:
    """An index of the few rows that meet the condition. Queries that are to use it say the condition as a literal:
    SQLite does not look into parameters."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


class VerdictRow(Base):
    __tablename__ = "verdict"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"))
    turn_index: Mapped[int]
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), index=True)
    outcome: Mapped[str] = mapped_column(String(8))
    step_index: Mapped[int | None]
    """The step of the turn at which it first held; NULL unless PASS."""
    source: Mapped[str] = mapped_column(String(8))
    judge: Mapped[str] = mapped_column(String(128))
    prompt_hash: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str]
    quote: Mapped[str]
    counts: Mapped[bool] = mapped_column(default=True, server_default=true())
    """False for a single vote of a panel, and for a judge that speaks beside the one that counts."""
    draw: Mapped[int] = mapped_column(default=0, server_default="0")
    """Which of several draws of the same judge."""
    share: Mapped[float | None]
    """Share of PASS among the votes where they are averaged; NULL: the outcome alone."""
    votes: Mapped[list[Any] | None]
    """[{"judge": …, "draw": …, "outcome": …}, …] of a combined verdict."""
    cache_key: Mapped[str | None] = mapped_column(String(64), index=True)
    """Hash of judge, prompt, what was shown and the item."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (
        Index("verdict_by_turn", "trajectory_id", "turn_index"),
        _where("verdict_of_person", _SAID, "judge", "created_at"),
        _where("verdict_by_people", _SAID, "trajectory_id", "turn_index", "item_id"),
        _where("verdict_unscored", _UNSCORED, "trajectory_id", "turn_index"),
    )


class ChecklistRow(Base):
    """A revision of a turn's checklist, append-only; the newest of each variant counts (docs/judging.md)."""

    __tablename__ = "checklist"
    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"))
    turn_index: Mapped[int]
    variant: Mapped[int]
    revision: Mapped[int]
    author: Mapped[str] = mapped_column(String(128))
    prompt_hash: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str]
    items: Mapped[list[Any]]
    """Items as in a scenario file, weights adding to 1; empty: no sound item is left."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("scenario_hash", "turn_index", "variant", "revision"),)


class ItemObjectionRow(Base):
    """A person says that an item is bad."""

    __tablename__ = "item_objection"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("item.id"), index=True)
    person: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str]
    seen_in: Mapped[str | None] = mapped_column(String(64))
    """The trajectory in which it was seen, which may be deleted later."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ModelCallRow(Base):
    """A call to an annotator or a judge: what it cost, and what went wrong."""

    __tablename__ = "model_call"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    model: Mapped[str] = mapped_column(String(128))
    prompt_hash: Mapped[str | None] = mapped_column(String(64))
    scenario_hash: Mapped[str | None] = mapped_column(String(64))
    trajectory_id: Mapped[str | None] = mapped_column(String(64), index=True)
    turn_index: Mapped[int | None]
    items: Mapped[int] = mapped_column(default=0)
    """How many items it was asked about."""
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    """Of them served from the endpoint's prefix cache, where it says so."""
    completion_tokens: Mapped[int]
    usd: Mapped[float | None]
    """NULL where the settings have no price for the model."""
    estimated: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Some tokens are estimated: the endpoint did not say, or a try that may have been billed had no answer."""
    latency_ms: Mapped[float]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class AnnotationRow(Base):
    """What became of a dialogue that was annotated; the newest row of a (scenario, variant) counts."""

    __tablename__ = "annotation"
    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"), index=True)
    variant: Mapped[int]
    annotator: Mapped[str] = mapped_column(String(128))
    prompt_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    problems: Mapped[list[Any]]
    """Why it was handed to a person, or which items were left out."""
    figures: Mapped[dict[str, Any]]
    """Of the self-test."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class ReviewSampleRow(Base):
    """A turn put up for review, and why."""

    __tablename__ = "review_sample"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"))
    turn_index: Mapped[int]
    reason: Mapped[str] = mapped_column(String(16))
    batch: Mapped[str] = mapped_column(String(64), index=True)
    score: Mapped[float | None]
    """How uncertain or disputed; NULL for the random share and anchors."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("trajectory_id", "turn_index", "reason", "batch"),)


class RewardRow(Base):
    """Trajectory and turn rewards (equations 4 and 6) as computed at one moment; the newest row counts."""

    __tablename__ = "reward"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"), index=True)
    value: Mapped[float | None]
    """NULL where it could not be judged: excluded, never zero (invariant 3)."""
    turn_values: Mapped[list[Any]]
    fully_passed: Mapped[bool | None]
    unscored: Mapped[int]
    excluded_reason: Mapped[str | None]
    made_of: Mapped[dict[str, Any] | None]
    """Checklist revisions, newest verdict and software that it was computed from."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index("reward_by_value", "value", "trajectory_id"),)
