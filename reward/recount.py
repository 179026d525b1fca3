"""Rewards of past trajectories computed again: what `checkloop reward`, the job `reward` and the pages do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reward.scoring import score_trajectories
from store.database import Log, in_chunks
from store.verdicts import Reward, rewards_of

CHUNK = 500
"""Trajectories that are scored between two looks at how far it is; memory is bounded by it."""


@dataclass
class Recount:
    """What computing rewards again came to."""

    trajectories: int = 0
    changed: int = 0
    up: int = 0
    down: int = 0
    total_difference: float = 0.0
    """Of values that went up or down, regardless of the sign."""
    greatest_difference: float = 0.0
    newly_scored: int = 0
    """They had no value, and have one."""
    newly_excluded: int = 0
    """They had a value, and have none."""

    def add(self, before: Reward | None, after: Reward) -> None:
        self.trajectories += 1
        self.changed += before != after
        value = None if before is None else before.value
        if value is not None and after.value is not None:
            self.up += after.value > value
            self.down += after.value < value
            self.total_difference += abs(after.value - value)
            self.greatest_difference = max(self.greatest_difference, abs(after.value - value))
        elif value != after.value:
            self.newly_scored += value is None
            self.newly_excluded += after.value is None

    def lines(self, dry_run: bool) -> list[str]:
        would = " would" if dry_run else ""
        said = [f"{self.trajectories} trajectories, {self.changed}{would} change{'' if dry_run else 'd'}"]
        if self.up or self.down:
            mean = self.total_difference / (self.up + self.down)
            most = self.greatest_difference
            said.append(f"values: {self.up} up, {self.down} down, by {mean:.4f} on average, {most:.4f} at most")
        if self.newly_scored or self.newly_excluded:
            said.append(f"{self.newly_scored} have a value now and had none, {self.newly_excluded} the other way round")
        return said


def recompute(
    log: Log,
    trajectory_ids: Sequence[str],
    *,
    dry_run: bool = False,
    on_progress: Callable[[Recount], object] = lambda found: None,
) -> Recount:
    """Scores them again, `CHUNK` at a time; `on_progress` is told what it came to so far. What is scored stays scored
    when it is stopped. Raises LogError for an id that is not in the log."""
    found = Recount()
    for chunk in in_chunks(trajectory_ids, CHUNK):
        before = rewards_of(log, chunk)
        for name, after in score_trajectories(log, chunk, dry_run=dry_run).items():
            found.add(before.get(name), after)
        on_progress(found)
    return found
