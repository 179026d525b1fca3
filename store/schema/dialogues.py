"""Scenarios and what was played from them or said in chats: trajectories, turns, steps, tool calls.

Tokens are stored once: a step holds only the ids that it adds to its parent's context (`delta_ids`, rendered from the
messages that are new) and the ids that were sampled. A context is its chain of parents; a fork is a step whose parent
already has another child (docs/architecture.md, "Tokens"). Ids are packed little-endian uint32, logprobs float32.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.schema.base import Base, BigKey, now

ELIGIBLE = "scenario_hash IS NOT NULL AND stop_reason IS NOT NULL AND stop_reason <> 'failed'"
"""Can be judged: queries that are to use the index say it in these words."""


class ScenarioRow(Base):
    __tablename__ = "scenario"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str]
    domain: Mapped[str] = mapped_column(String(64), index=True)
    source: Mapped[str] = mapped_column(String(64))
    split: Mapped[str] = mapped_column(String(16), index=True)
    seen: Mapped[bool]
    turn_count: Mapped[int]
    document: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class ItemRow(Base):
    """An item of a scenario turn's checklist, broken out of the document so that verdicts can be counted by it."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"))
    turn_index: Mapped[int]
    key: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(32))
    """The check's kind, or "llm" for an item without a check."""
    focus_on: Mapped[str] = mapped_column(String(32))
    tool: Mapped[str | None] = mapped_column(String(128))
    """Whose call or answer its check is about; NULL where that is no single tool."""
    question: Mapped[str]
    strict: Mapped[bool]
    weight: Mapped[float]
    """In the checklist that brought it; revisions of that have weights of their own."""
    __table_args__ = (UniqueConstraint("scenario_hash", "turn_index", "key"),)


class GroupRow(Base):
    """The G trajectories of one scenario that share one GRPO baseline."""

    __tablename__ = "rollout_group"
    id: Mapped[int] = mapped_column(primary_key=True)
    scenario_hash: Mapped[str] = mapped_column(String(64), ForeignKey("scenario.hash"))
    batch: Mapped[str] = mapped_column(String(128), index=True)
    """What it was played for, e.g. "demo/round-2/train"."""
    version: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=now)


class TrajectoryRow(Base):
    __tablename__ = "trajectory"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Also the gateway's session, or one agent of it (`trajectory_id`)."""
    session: Mapped[str | None] = mapped_column(String(64), index=True)
    """The gateway's session where that holds several agents; NULL where the trajectory is the whole session."""
    agent: Mapped[str | None] = mapped_column(String(64))
    """Which agent of the session speaks here, as the client named it."""
    origin: Mapped[str] = mapped_column(String(16))
    scenario_hash: Mapped[str | None] = mapped_column(String(64), ForeignKey("scenario.hash"), index=True)
    group_id: Mapped[int | None] = mapped_column(ForeignKey("rollout_group.id"), index=True)
    batch: Mapped[str | None] = mapped_column(String(128), index=True)
    member: Mapped[int] = mapped_column(default=0)
    """Index within the group or evaluation."""
    version: Mapped[str | None] = mapped_column(String(16), index=True)
    """The version that was asked for; each step names the one that sampled it."""
    seed: Mapped[int | None] = mapped_column(BigInteger)
    sampling: Mapped[dict[str, Any] | None]
    stop_reason: Mapped[str | None] = mapped_column(String(32))
    """NULL while it is running."""
    error: Mapped[str | None]
    title: Mapped[str | None]
    chat: Mapped[dict[str, Any] | None]
    """What a chat of ours runs with (`store.chats.ChatSetup`); NULL for everything else."""
    unlisted_at: Mapped[datetime | None]
    """Since when a chat is off the list of chats; NULL: it is on it. Its log stays."""
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        Index("trajectory_by_version", "version", "created_at"),
        Index("trajectory_by_origin", "origin", "created_at"),
        Index(
            "trajectory_eligible",
            "origin",
            "version",
            "id",
            sqlite_where=text(ELIGIBLE),
            postgresql_where=text(ELIGIBLE),
        ),
    )


class TurnRow(Base):
    __tablename__ = "turn"
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class StepRow(Base):
    __tablename__ = "step"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"))
    turn_index: Mapped[int]
    index: Mapped[int]
    """Within its turn."""
    parent_id: Mapped[int | None] = mapped_column(BigKey, ForeignKey("step.id"), index=True)
    version: Mapped[str] = mapped_column(String(16), index=True)
    """The version that began the step."""
    version_spans: Mapped[list[Any] | None]
    """[[version, sampled tokens], …] where a swap came between two of its tokens; NULL: `version` sampled them all."""
    forked: Mapped[bool] = mapped_column(default=False, server_default=false())
    """The client rewrote history: assistant messages before this step are not those that were sampled, or its parent
    had been continued already."""
    new_messages: Mapped[list[Any]]
    """The request's messages that are new to the parent's context, in OpenAI form."""
    tools_hash: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[dict[str, Any]]
    """What was sampled, parsed: content, reasoning, tool_calls."""
    delta_ids: Mapped[bytes]
    sampled_ids: Mapped[bytes]
    logprobs: Mapped[bytes]
    context_tokens: Mapped[int]
    """Length of the whole prompt, the parent's context included."""
    sampled_tokens: Mapped[int]
    finish_reason: Mapped[str | None] = mapped_column(String(16))
    latency_ms: Mapped[float]
    sampling: Mapped[dict[str, Any]]
    trainable: Mapped[bool]
    untrainable_reason: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index("step_by_turn", "trajectory_id", "turn_index", "index"),)


class ToolCallRow(Base):
    __tablename__ = "tool_call"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"))
    step_id: Mapped[int] = mapped_column(BigKey, ForeignKey("step.id"), index=True)
    index: Mapped[int]
    call_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(128))
    arguments: Mapped[str]
    """As sampled; JSON if the policy wrote JSON."""
    __table_args__ = (
        Index("tool_call_by_call", "trajectory_id", "call_id"),
        Index("tool_call_by_name", "name", "trajectory_id"),
    )


class ToolResponseRow(Base):
    """The answer to a tool call, written by whoever gave it, once."""

    __tablename__ = "tool_response"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"))
    call_id: Mapped[str] = mapped_column(String(64))
    response: Mapped[str]
    is_error: Mapped[bool]
    source: Mapped[str] = mapped_column(String(16))
    latency_ms: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("trajectory_id", "call_id"),)


class RatingRow(Base):
    """A person's thumbs on a turn, with a comment, append-only; the newest row of a turn counts."""

    __tablename__ = "rating"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"))
    turn_index: Mapped[int]
    value: Mapped[int]
    """+1 thumbs up, -1 thumbs down, 0 taken back."""
    comment: Mapped[str]
    person: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index("rating_by_turn", "trajectory_id", "turn_index"),)


class IncidentRow(Base):
    """A request that the gateway took and that ended in no step, or a server that did not come back (of no trajectory):
    what went wrong, never a reward (invariant 3)."""

    __tablename__ = "incident"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str | None] = mapped_column(String(64), ForeignKey("trajectory.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str]
    version: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
