"""The tables of the log. Append-only where people or judges speak; ORM rows never leave `store/`.

Tokens are stored once: a step holds only the ids that it adds to its parent's context (`delta_ids`, rendered from the
messages that are new) and the ids that were sampled. A context is its chain of parents; a fork is a step whose parent
already has another child (docs/architecture.md, "Tokens"). Ids are packed little-endian uint32, logprobs float32.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BigKey = BigInteger().with_variant(Integer, "sqlite")
_RUNNING = "status = 'running'"


def now() -> datetime:
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, aware on both databases (SQLite forgets the zone, PostgreSQL answers in the session's)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone; the log keeps aware datetimes")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StoredText(TypeDecorator[str]):
    """Text as both databases can hold it: NUL and lone surrogates, which a policy may well sample, become U+FFFD.

    Nothing is lost by it: what was sampled is kept exactly as ids.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


def storable(value: str) -> str:
    if value.isascii():
        return value.replace("\0", "\ufffd")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


class Base(DeclarativeBase):
    __table__: ClassVar[Table]
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        bytes: LargeBinary,
        datetime: UtcDateTime(),
        str: StoredText(),
    }


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
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    ended_at: Mapped[datetime | None]


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
    name: Mapped[str] = mapped_column(String(128), index=True)
    arguments: Mapped[str]
    """As sampled; JSON if the policy wrote JSON."""
    __table_args__ = (Index("tool_call_by_call", "trajectory_id", "call_id"),)


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
    __table_args__ = (Index("verdict_by_turn", "trajectory_id", "turn_index"),)


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
    """A request that the gateway took and that ended in no step: what went wrong, never a reward (invariant 3)."""

    __tablename__ = "incident"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str]
    version: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


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
    passed: Mapped[bool]
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
    """Exactly which trajectories a run trained on, and with which advantage (equation 5)."""

    __tablename__ = "run_trajectory"
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id"), primary_key=True)
    trajectory_id: Mapped[str] = mapped_column(String(64), ForeignKey("trajectory.id"), primary_key=True, index=True)
    advantage: Mapped[float]


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


class ScheduleRow(Base):
    """When which jobs are queued (docs/schedules.md)."""

    __tablename__ = "schedule"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    trigger: Mapped[dict[str, Any]]
    jobs: Mapped[list[Any]]
    """[{"kind": …, "payload": {…}, "priority": …, "max_attempts": …}, …], one pipeline."""
    zone: Mapped[str] = mapped_column(String(64))
    missed: Mapped[str] = mapped_column(String(8))
    overlap: Mapped[str] = mapped_column(String(8))
    paused: Mapped[bool]
    armed_at: Mapped[datetime]
    """What happened before it was made, changed or resumed does not fire it."""
    mark: Mapped[int] = mapped_column(BigInteger)
    """The newest verdict when it last fired: turns are counted from there."""
    last_fired: Mapped[datetime | None]
    next_due: Mapped[datetime | None]
    """Of cron triggers."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class FiringRow(Base):
    """A time at which a schedule was due, and what came of it; unique, so that no two workers fire it."""

    __tablename__ = "firing"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id"))
    due: Mapped[str] = mapped_column(String(64))
    """The cron time, the mark that turns were counted from, or the job that was done."""
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str]
    pipeline: Mapped[str | None] = mapped_column(String(96))
    created_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("schedule_id", "due"),)


class JobRow(Base):
    """A piece of work for a worker: queued, taken under a lease, ended (docs/schedules.md)."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int]
    run_after: Mapped[datetime]
    pipeline: Mapped[str] = mapped_column(String(96))
    position: Mapped[int]
    """Within its pipeline; it starts when those before are done."""
    schedule_id: Mapped[int | None] = mapped_column(ForeignKey("schedule.id"), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    """Tries that count; one that was stopped with its worker does not."""
    max_attempts: Mapped[int]
    claims: Mapped[int] = mapped_column(default=0)
    """How often it was taken: who holds an older number holds nothing."""
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    host: Mapped[str | None] = mapped_column(String(64))
    accelerator: Mapped[str | None] = mapped_column(String(32))
    holds: Mapped[str | None] = mapped_column(String(128))
    """What only one running job has at a time: "anna/cuda:0", "anna/gateway:8080"; kept when it has ended."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    notes: Mapped[dict[str, Any] | None]
    """What it chose when it first started, so that whoever takes it over goes on with the same work."""
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    exit_reason: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        UniqueConstraint("pipeline", "position"),
        Index("job_by_status", "status", "priority", "id"),
        Index("job_holds", "holds", unique=True, sqlite_where=text(_RUNNING), postgresql_where=text(_RUNNING)),
    )


class JobLogRow(Base):
    """A line that a job's process wrote."""

    __tablename__ = "job_log"
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class WorkerRow(Base):
    __tablename__ = "worker"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int]
    accelerators: Mapped[list[Any]]
    kinds: Mapped[list[Any]]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
