"""What is to be played: one plan a dialogue, the same plans after a restart, less what has been played already.

Reads the batch's trajectories; writes groups and deletes the dialogues that a kill left unfinished.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from store.database import Log
from store.records import Scenario
from store.trajectories import TrajectorySummary, create_group, delete_trajectories, list_trajectories
from store.vocabulary import Origin, StopReason


@dataclass(frozen=True)
class RolloutPlan:
    """One dialogue to play."""

    scenario: Scenario
    trajectory_id: str
    seed: int
    """Of the policy's sampling; another one for each member."""
    origin: Origin
    batch: str | None
    group_id: int | None
    member: int
    version: str | None
    world_seed: int | None = None
    """Of the simulated tools, shared by a group; None: `seed`."""


def make_plans(
    scenarios: Sequence[Scenario],
    *,
    group_size: int,
    batch: str,
    seed: int,
    origin: Origin,
    version: str,
    log: Log,
    replay_failed: bool = False,
) -> list[RolloutPlan]:
    """What is still to be played of `batch`: `group_size` dialogues of each scenario, in the scenarios' order.

    Trajectory ids follow from (batch, scenario, member), so that a stage which was killed and starts again plays only
    what is missing; what the kill left unfinished is deleted and played anew. With Origin.ROLLOUT each scenario gets
    a group. `replay_failed` also plans dialogues that FAILED, under new ids in the same group (the failed ones stay in
    the log). Raises ValueError for a scenario given twice, or when the batch was played with another version or seed.
    """
    hashes = [scenario.hash for scenario in scenarios]
    if len(set(hashes)) != len(hashes):
        raise ValueError(f"batch {batch!r} names a scenario twice: member numbers would not be unique")
    played = list_trajectories(log, batch=batch, limit=None)
    delete_trajectories(log, [one.id for one in played if one.stop_reason is None])
    ended = {one.id: one for one in played if one.stop_reason is not None}
    groups = {one.scenario_hash: one.group_id for one in ended.values()}
    plans = []
    for scenario, scenario_hash in zip(scenarios, hashes, strict=True):
        world_seed = derive_seed(seed, scenario_hash)
        missing = []
        for member in range(group_size):
            trajectory_id, attempt = trajectory_id_of(batch, scenario_hash, member), 0
            while (before := ended.get(trajectory_id)) is not None:
                _check_same(before, batch, version, derive_seed(seed, scenario_hash, member))
                if before.stop_reason != StopReason.FAILED or not replay_failed:
                    break
                attempt += 1
                trajectory_id = trajectory_id_of(batch, scenario_hash, member, attempt)
            if before is None:
                missing.append((member, trajectory_id))
        if not missing:
            continue
        group_id = groups.get(scenario_hash)
        if origin == Origin.ROLLOUT and group_id is None:
            group_id = create_group(log, scenario_hash, batch, version, world_seed)
        for member, trajectory_id in missing:
            plans.append(
                RolloutPlan(
                    scenario=scenario,
                    trajectory_id=trajectory_id,
                    seed=derive_seed(seed, scenario_hash, member),
                    origin=origin,
                    batch=batch,
                    group_id=group_id,
                    member=member,
                    version=version,
                    world_seed=world_seed,
                )
            )
    return plans


def trajectory_id_of(batch: str, scenario_hash: str, member: int, attempt: int = 0) -> str:
    """The id of a planned trajectory: 32 hexadecimal digits, safe in a URL."""
    return hashlib.sha256(f"{batch}\n{scenario_hash}\n{member}\n{attempt}".encode()).hexdigest()[:32]


def derive_seed(seed: int, *parts: str | int) -> int:
    """A seed below 2**62 that follows from `seed` and what it is for: room to count up from it in 64 bits."""
    text = "\n".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def _check_same(before: TrajectorySummary, batch: str, version: str, seed: int) -> None:
    if before.version != version or before.seed != seed:
        raise ValueError(
            f"batch {batch!r} was played before with version {before.version} and seed {before.seed}, "
            f"now asked for with version {version} and seed {seed}: use another batch name"
        )
