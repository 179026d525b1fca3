"""Policy versions, the runs that make them and their data, the gate, and loops with their stages."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base, BigKey, now


class VersionRow(Base):
    __tablename__ = "policy_version"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    parent: Mapped[str | None] = mapped_column(String(16))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("run.id"))
    path: Mapped[str]
    files: Mapped[dict[str, Any]]
    """File name to SHA-256."""
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class VersionPinRow(Base):
    """Pins and their removal, append-only; the newest row counts. A pinned version is never pruned."""

    __tablename__ = "policy_version_pin"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(String(16), ForeignKey("policy_version.name"), index=True)
    pinned: Mapped[bool]
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class TrafficSplitRow(Base):
    """Which share of new sessions a candidate answers, append-only; the newest row counts."""

    __tablename__ = "traffic_split"
    id: Mapped[int] = mapped_column(primary_key=True)
    candidate: Mapped[str | None] = mapped_column(String(16), ForeignKey("policy_version.name"))
    """NULL ends the split."""
    share: Mapped[float]
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class VersionStateRow(Base):
    """State changes of a version, append-only; the newest row is its state."""

    __tablename__ = "policy_version_state"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(String(16), ForeignKey("policy_version.name"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class GateRow(Base):
    __tablename__ = "gate_decision"
    id: Mapped[int] = mapped_column(primary_key=True)
    candidate: Mapped[str] = mapped_column(String(16), ForeignKey("policy_version.name"))
    live: Mapped[str] = mapped_column(String(16))
    passed: Mapped[bool | None]
    """NULL: the gate could not decide."""
    figures: Mapped[dict[str, Any]]
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class RunRow(Base):
    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    base_version: Mapped[str | None] = mapped_column(String(16))
    seed: Mapped[int] = mapped_column(BigInteger)
    settings: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]


class RunTrajectoryRow(Base):
    """Exactly which trajectories a run trained on, and with which advantages."""

    __tablename__ = "run_trajectory"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id"), primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"), primary_key=True, index=True)
    advantage: Mapped[float]
    """Equation 5 with the group's baseline, whatever the run trained with: how the trajectory stands in its group."""
    level: Mapped[str | None] = mapped_column(String(16))
    """What it was trained with (`AdvantageLevel`); NULL in rows from before this was stored."""
    by_step: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """[[turn, step, advantage], …] of its steps that are in the loss."""
    largest: Mapped[float | None]
    """The greatest absolute value in `by_step`; 0 where that is empty."""


class RunDialogueRow(Base):
    """Exactly which scenarios' dialogues a cold start, or a small judge, was trained on (split train) and measured on
    (validation)."""

    __tablename__ = "run_dialogue"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id"), primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"), primary_key=True, index=True)
    split: Mapped[str] = mapped_column(String(16))


class ThinkingCompressionRow(Base):
    """Shorter thinking for a scenario's reference; the newest row of (scenario, compressor, prompt) counts."""

    __tablename__ = "thinking_compression"
    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"), index=True)
    compressor: Mapped[str] = mapped_column(String(128))
    prompt_hash: Mapped[str] = mapped_column(String(64))
    passages: Mapped[list[Any]]
    """[[turn, step, thinking], …] of those that were taken."""
    problems: Mapped[list[Any]]
    """[[turn, step, reason], …] of those of which the original stays."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class DialogueCriticismRow(Base):
    """What an LLM found wrong with a scenario's reference; the newest row of (scenario, model, prompt) counts."""

    __tablename__ = "dialogue_criticism"
    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"), index=True)
    model: Mapped[str] = mapped_column(String(128))
    prompt_hash: Mapped[str] = mapped_column(String(64))
    """Of prompt, efforts and draws."""
    problem: Mapped[str]
    """Empty: none."""
    effort: Mapped[str] = mapped_column(String(16))
    """At which it was found, or the last one."""
    questions: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)


class SftSetRow(Base):
    """A file of dialogues to start from, made of the log's scenarios."""

    __tablename__ = "sft_set"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    dialogues: Mapped[int]
    settings: Mapped[dict[str, Any]]
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class MetricRow(Base):
    __tablename__ = "metric"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id"))
    step: Mapped[int]
    name: Mapped[str] = mapped_column(String(128))
    value: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index("metric_by_run", "run_id", "name", "step"),)


class LoopRow(Base):
    """A named loop (the demo is one): its settings, fixed at the start so that a resumed loop is the same loop."""

    __tablename__ = "loop"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    seed: Mapped[int] = mapped_column(BigInteger)
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class StageRow(Base):
    """One stage of a loop, done once: its result is what later stages read after a restart."""

    __tablename__ = "stage"
    id: Mapped[int] = mapped_column(primary_key=True)
    loop: Mapped[str] = mapped_column(String(64), ForeignKey("loop.name"))
    key: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    seconds: Mapped[float | None]
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("loop", "key"),)
