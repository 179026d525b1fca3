"""Whether the log is what it says it is: ids that add up, and how many steps are forks, mixed, or not trained on.

Reads every step, in chunks of trajectories.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import select

from store.database import AnyRow, Log, in_chunks
from store.incidents import incident_counts
from store.schema import StepRow, TrajectoryRow
from store.tokens import unpack_ids, unpack_logprobs
from store.vocabulary import IncidentKind

STEP = StepRow.__table__.c
_COLUMNS = (
    STEP.id,
    STEP.trajectory_id,
    STEP.parent_id,
    STEP.delta_ids,
    STEP.sampled_ids,
    STEP.logprobs,
    STEP.context_tokens,
    STEP.sampled_tokens,
    STEP.trainable,
    STEP.untrainable_reason,
    STEP.version,
    STEP.version_spans,
    STEP.forked,
)


@dataclass
class LogCheck:
    """What a check found; the log is sound if `damaged` is empty."""

    trajectories: int = 0
    steps: int = 0
    tokens: int = 0
    """Sampled."""
    forked: int = 0
    across_swaps: int = 0
    untrainable: Counter[str] = field(default_factory=Counter)
    """By reason."""
    incidents: Counter[IncidentKind] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    """One line for each step whose record contradicts itself."""

    @property
    def fork_share(self) -> float:
        return self.forked / self.steps if self.steps else 0.0


def check_log(log: Log) -> LogCheck:
    """Goes over every step: invariant 1, lengths, version spans, reasons."""
    found = LogCheck(incidents=incident_counts(log))
    with log.lookup() as connection:
        names = list(connection.scalars(select(TrajectoryRow.id).order_by(TrajectoryRow.id)))
    found.trajectories = len(names)
    for chunk in in_chunks(names, 200):
        ends: dict[int, tuple[str, int]] = {}
        with log.lookup() as connection:
            for row in connection.execute(select(*_COLUMNS).where(STEP.trajectory_id.in_(chunk)).order_by(STEP.id)):
                found.steps += 1
                found.tokens += row.sampled_tokens
                found.forked += row.forked
                found.across_swaps += row.version_spans is not None
                if not row.trainable:
                    found.untrainable[row.untrainable_reason or "no reason given"] += 1
                found.damaged += [
                    f"step {row.id} of {row.trajectory_id}: {said}" for said in _contradictions(row, ends)
                ]
                ends[row.id] = (row.trajectory_id, row.context_tokens + row.sampled_tokens)
    return found


def _contradictions(row: AnyRow, ends: dict[int, tuple[str, int]]) -> Iterator[str]:
    sampled = len(unpack_ids(row.sampled_ids))
    added = len(unpack_ids(row.delta_ids))
    logprobs = len(unpack_logprobs(row.logprobs))
    parent, context = row.parent_id, row.context_tokens
    owner, before = (row.trajectory_id, 0) if parent is None else ends.get(parent, ("", -1))
    if sampled != row.sampled_tokens:
        yield f"{sampled} sampled ids are stored, {row.sampled_tokens} are said"
    if logprobs != sampled:
        yield f"{sampled} sampled ids but {logprobs} logprobs"
    if owner != row.trajectory_id:
        yield f"its parent {parent} is no earlier step of the same trajectory"
    elif before + added != context:
        yield f"{before} ids of its parent and {added} new ones are not the {context} of its context"
    spans = row.version_spans
    if spans and (sum(count for _, count in spans) != sampled or spans[0][0] != row.version):
        yield f"its version spans {spans} do not cover its {sampled} tokens from {row.version} on"
    if row.trainable and row.untrainable_reason:
        yield f"trainable, and not ({row.untrainable_reason})"
