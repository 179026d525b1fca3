"""The ids of a trajectory, put together from its steps' deltas; nothing here ever tokenizes text (invariant 1).

Reads the step table. Ids are packed as little-endian uint32, logprobs as little-endian float32.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from store.database import AnyRow, Log, LogError, in_chunks
from store.schema import StepRow
from store.vocabulary import Untrainable

STEP = StepRow.__table__.c


def pack_ids(ids: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error as error:
        bad = next((i for i in ids if not isinstance(i, int) or not 0 <= i < 2**32), None)
        raise LogError(f"{bad!r} is no token id: an integer from 0 to 2^32 - 1") from error


def unpack_ids(packed: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(packed) // 4}I", packed))


def pack_logprobs(logprobs: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(logprobs)}f", *logprobs)


def unpack_logprobs(packed: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


class SequenceStep(NamedTuple):
    turn_index: int
    step_index: int
    version: str
    trainable: bool
    truncated: bool = False
    """Cut off by a limit: the policy's own doing, so its reward counts although the step is not trained on."""
    later_versions: tuple[str, ...] = ()
    """Versions that went on with it after a swap in its middle."""


@dataclass(frozen=True)
class TokenSequence:
    """The main branch of a trajectory as one sequence. T = len(completion_ids), also of the four lists below it."""

    trajectory_id: str
    prompt_ids: list[int]
    """The first step's whole prompt."""
    completion_ids: list[int]
    """Everything after it: sampled ids and, between them, the ids of tool responses and later user messages."""
    sampled: list[int]
    """1 where the policy sampled the id, 0 elsewhere."""
    logprobs: list[float]
    """The behaviour policy's, as the server returned them; 0.0 where `sampled` is 0."""
    step_of_token: list[int]
    """Index into `steps`; -1 where `sampled` is 0."""
    steps: list[SequenceStep]


@dataclass(frozen=True)
class StepIds:
    """What one step adds to its parent's context, and what it sampled (T, with logprobs in nats)."""

    step_id: int
    turn_index: int
    step_index: int
    version: str
    delta_ids: list[int]
    """Of its prompt: the whole of it where the step has no parent."""
    sampled_ids: list[int]
    logprobs: list[float]


def ids_of_steps(log: Log, step_ids: Sequence[int]) -> list[StepIds]:
    """In order of id."""
    columns = (STEP.turn_index, STEP.index, STEP.version, STEP.delta_ids, STEP.sampled_ids, STEP.logprobs)
    found: list[StepIds] = []
    with log.lookup() as connection:
        for chunk in in_chunks(step_ids):
            for row in connection.execute(select(STEP.id, *columns).where(STEP.id.in_(chunk))):
                sampled, logprobs = unpack_ids(row.sampled_ids), unpack_logprobs(row.logprobs)
                found.append(StepIds(*row[:4], unpack_ids(row.delta_ids), sampled, logprobs))
    return sorted(found, key=lambda one: one.step_id)


def context_ids(log: Log, step_id: int) -> list[int]:
    """Prompt ids and sampled ids of the step and all its parents: what the next step's prompt must begin with.

    Raises LogError if there is no such step.
    """
    columns = (STEP.id, STEP.parent_id, STEP.delta_ids, STEP.sampled_ids)
    chain = select(*columns).where(STEP.id == step_id).cte("chain", recursive=True)
    chain = chain.union_all(select(*columns).where(STEP.id == chain.c.parent_id))
    with log.lookup() as connection:
        rows = {row.id: row for row in connection.execute(select(chain))}
    if not rows:
        raise LogError(f"there is no step {step_id} in the log")
    ids: list[int] = []
    for row in _chain(rows, step_id):
        ids += unpack_ids(row.delta_ids) + unpack_ids(row.sampled_ids)
    return ids


def token_sequences(log: Log, trajectory_ids: Iterable[str]) -> dict[str, TokenSequence]:
    """The main branch (the chain of parents that ends in the last step recorded) of each trajectory.

    Trajectories without a step are left out. One query for every 500 trajectories. Raises LogError where the ids do
    not add up to the lengths recorded with them: such a log must not be trained on.
    """
    columns = (
        STEP.id,
        STEP.trajectory_id,
        STEP.turn_index,
        STEP.index.label("step_index"),
        STEP.parent_id,
        STEP.version,
        STEP.delta_ids,
        STEP.sampled_ids,
        STEP.logprobs,
        STEP.context_tokens,
        STEP.trainable,
        STEP.untrainable_reason,
        STEP.version_spans,
    )
    wanted = list(dict.fromkeys(trajectory_ids))
    rows: dict[str, dict[int, AnyRow]] = {}
    with log.lookup() as connection:
        for chunk in in_chunks(wanted):
            for row in connection.execute(select(*columns).where(STEP.trajectory_id.in_(chunk))):
                rows.setdefault(row.trajectory_id, {})[row.id] = row
    return {name: _sequence(name, _chain(rows[name], max(rows[name]))) for name in wanted if name in rows}


def _chain(rows: dict[int, AnyRow], last: int) -> list[AnyRow]:
    """The rows from the root to `last`."""
    chain: list[AnyRow] = []
    step_id: int | None = last
    while step_id is not None:
        if step_id not in rows:
            raise LogError(f"step {last}'s chain of parents leaves its trajectory at step {step_id}")
        chain.append(rows[step_id])
        step_id = rows[step_id].parent_id
    return chain[::-1]


def _sequence(trajectory_id: str, chain: list[AnyRow]) -> TokenSequence:
    prompt = unpack_ids(chain[0].delta_ids)
    completion: list[int] = []
    sampled: list[int] = []
    logprobs: list[float] = []
    step_of_token: list[int] = []
    for ordinal, row in enumerate(chain):
        delta = unpack_ids(row.delta_ids) if ordinal else []
        if len(prompt) + len(completion) + len(delta) != row.context_tokens:
            raise LogError(
                f"trajectory {trajectory_id}, step {row.id}: the ids of its context number "
                f"{len(prompt) + len(completion) + len(delta)}, the log says {row.context_tokens}"
            )
        ids = unpack_ids(row.sampled_ids)
        completion += delta + ids
        sampled += [0] * len(delta) + [1] * len(ids)
        logprobs += [0.0] * len(delta) + unpack_logprobs(row.logprobs)
        step_of_token += [-1] * len(delta) + [ordinal] * len(ids)
    if not len(completion) == len(sampled) == len(logprobs):
        raise LogError(f"trajectory {trajectory_id} has {sum(sampled)} sampled ids and {len(logprobs)} logprobs")
    steps = [
        SequenceStep(
            row.turn_index,
            row.step_index,
            row.version,
            row.trainable,
            row.untrainable_reason == Untrainable.TRUNCATED,
            tuple(version for version, _ in (row.version_spans or ())[1:]),
        )
        for row in chain
    ]
    return TokenSequence(trajectory_id, prompt, completion, sampled, logprobs, step_of_token, steps)
