"""Whether what an online run learns carries over: looks at scenarios that it never trains on, between its rounds.

Every look plays the same validation scenarios with the same seeds, so that two are compared pair by pair. A run whose
rollouts earn more while these earn less is pleasing its judge or learning its scenarios by heart (docs/training.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward.intervals import paired_bootstrap
from train.gate import MIN_PAIRS


@dataclass(frozen=True)
class Look:
    """After round `after` (0: before the first one), by what `version` does."""

    after: int
    version: str
    rewards: Mapping[str, float | None]
    """By scenario hash, in [0, 1]; None: excluded, with its pair (invariant 3)."""

    @property
    def mean(self) -> float | None:
        known = [reward for reward in self.rewards.values() if reward is not None]
        return sum(known) / len(known) if known else None


def best_look(looks: Sequence[Look]) -> Look:
    """Of the greatest mean reward, the earliest of equal ones. Raises ValueError without a look."""
    return max(looks, key=lambda look: (look.mean if look.mean is not None else -1.0, -look.after))


def why_stop(looks: Sequence[Look], rollouts: Sequence[float], *, seed: int) -> str | None:
    """Why a run should end with its best look's version, or None: the newest look is below the best one before it, with
    the whole paired 95 % bootstrap interval, though the rollouts earn more than they did then.

    `rollouts`: the mean reward of each round's rollouts, from round 1 to the newest look's. A run that got worse on
    both is for the gate to refuse: nothing hides there. Not decided on fewer than MIN_PAIRS pairs.
    """
    if len(looks) < 2:
        return None
    best, newest = best_look(looks[:-1]), looks[-1]
    both = [(best.rewards.get(name), now) for name, now in sorted(newest.rewards.items())]
    pairs = [(then, now) for then, now in both if then is not None and now is not None]
    if len(pairs) < MIN_PAIRS:
        return None
    found = paired_bootstrap([then for then, _ in pairs], [now for _, now in pairs], seed)
    earned_then, earned_now = rollouts[max(best.after, 1) - 1], rollouts[newest.after - 1]
    if not (found.high < 0 and earned_now > earned_then):
        return None
    return (
        f"held-out reward fell by {-100 * found.mean_difference:.1f} points "
        f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}] since {best.version} on {len(pairs)} validation scenarios, "
        f"while the rollouts' rose from {100 * earned_then:.1f} to {100 * earned_now:.1f}"
    )
