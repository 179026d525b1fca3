"""Equations 2, 3, 4 and 6 of CM2 on records of which item first held when. Pure; reads and writes nothing.

States: x_s is the state before step s, x_{s+1} the one after it, tool responses to the step's calls included. Once
satisfied an item stays satisfied, so an item that first holds at step u holds in x_s exactly for s > u.

Dependencies are read strictly: they must hold in x_u, *before* the step at which the item becomes true. Two
consequences: an item that becomes true in the same step as something it depends on never pays, and neither does one
that becomes true earlier, for later on it "does not hold" no more. A checklist must therefore not let an item depend on
another one that becomes true in the same step: a response on its own call, or two items of the end of the turn on each
other (`not_called`, `at_most` and everything about the reply hold from the last step).

Past the paper: where a panel's votes are averaged, r and r̃ are the share of votes that say PASS instead of 1.

Axes in names: S steps of a turn, N items of a turn, T turns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ItemState:
    """What one item of a turn came to."""

    key: str
    weight: float
    first_satisfied: int | None
    """The step (from 0) at which it first held; None if it never did."""
    depends_on: tuple[str, ...] = ()
    scored: bool = True
    """False where nobody could decide it (UNSCORED); `first_satisfied` then means nothing."""
    share: float = 1.0
    """In [0, 1]: how many of a panel's averaged votes say that it holds. It pays this share of its weight."""

    @property
    def worth(self) -> float:
        """Its outcome in the turn, whatever it depends on: 0 if it never held, else its share."""
        return 0.0 if self.first_satisfied is None else self.share


def is_paid(item: ItemState, items: Sequence[ItemState]) -> bool:
    """Whether equation 2 pays the item: all its dependencies held before the step at which it first held."""
    return item.scored and item.first_satisfied is not None and dependencies_hold(item, items, item.first_satisfied)


def paid_share(item: ItemState, items: Sequence[ItemState]) -> float:
    """Which share of its weight the item pays: 0, 1, or its share of averaged votes."""
    return item.share if is_paid(item, items) else 0.0


def dependencies_hold(item: ItemState, items: Sequence[ItemState], step: int) -> bool:
    """Whether all dependencies of the item hold in the state before `step`. Raises KeyError for an unknown one."""
    first = {other.key: other.first_satisfied if other.scored else None for other in items}
    return all((since := first[key]) is not None and since < step for key in item.depends_on)


def step_rewards(items: Sequence[ItemState], step_count: int) -> list[list[float]]:
    """Equation 2: r_S_N, 1 (the item's share) at the one step at which the item pays."""
    paid_N = [paid_share(item, items) for item in items]
    return [
        [paid if step == item.first_satisfied else 0.0 for paid, item in zip(paid_N, items, strict=True)]
        for step in range(step_count)
    ]


def backfilled_rewards(items: Sequence[ItemState], step_count: int) -> list[list[float]]:
    """Equation 3: r̃_S_N, 1 (the item's share) at every eligible step from which the item still becomes true."""
    return [
        [item.worth if eligible else 0.0 for eligible, item in zip(eligible_N, items, strict=True)]
        for eligible_N in eligible_items(items, step_count)
    ]


def eligible_items(items: Sequence[ItemState], step_count: int) -> list[list[bool]]:
    """E of equation 10, as E_S_N: dependencies hold before the step, and the item does not yet. UNSCORED never is."""
    return [
        [
            item.scored
            and (item.first_satisfied is None or item.first_satisfied >= step)
            and dependencies_hold(item, items, step)
            for item in items
        ]
        for step in range(step_count)
    ]


def turn_reward(items: Sequence[ItemState]) -> float | None:
    """Equation 6: Σ_s Σ_c w r, in [0, 1] where the weights add to 1. None if any item is UNSCORED (invariant 3)."""
    if not all(item.scored for item in items):
        return None
    return math.fsum(item.weight * paid_share(item, items) for item in items)


def trajectory_reward(turn_rewards_T: Sequence[float | None], turn_count: int) -> float | None:
    """Equation 4: the sum of the turn rewards over L = `turn_count`, the number of turns the scenario has.

    `turn_rewards_T` are the turns that were reached; turns that never were count 0, for that is the policy's own doing.
    None if any reached turn could not be scored. Raises ValueError for more turns than the scenario has.
    """
    if len(turn_rewards_T) > turn_count or turn_count < 1:
        raise ValueError(f"{len(turn_rewards_T)} turns were reached of a scenario that has {turn_count}")
    if any(reward is None for reward in turn_rewards_T):
        return None
    return math.fsum(reward for reward in turn_rewards_T if reward is not None) / turn_count
