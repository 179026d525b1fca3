"""Equations 2 to 10 as CM2 prints them, state by state and in loops; imports nothing of ours.

x_s is the state before step s: here the set of items that hold in it. A panel's averaged votes make 1 a share.
"""

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class SlowItem:
    """c: its weight w and what it depends on; the same in all rollouts."""

    id: str
    weight: float
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlowOutcome:
    """What one rollout made of an item in one turn."""

    first: int | None
    """The step that made it hold."""
    share: float = 1.0
    scored: bool = True


@dataclass(frozen=True)
class SlowTurn:
    """One rollout in one turn under one checklist."""

    items: tuple[SlowItem, ...]
    outcomes: dict[str, SlowOutcome]
    steps: int

    @cached_property
    def x(self) -> list[set[str]]:
        """x[s], the items that hold before step s; x[steps] after the last one."""
        states: list[set[str]] = [set()]
        for s in range(self.steps):
            made = {c.id for c in self.items if self.outcomes[c.id].scored and self.outcomes[c.id].first == s}
            states.append(states[s] | made)
        return states


Rollout = list[list[SlowTurn]]
"""For each turn that was reached, one entry for each checklist."""


def r(turn: SlowTurn, s: int, c: SlowItem) -> float:
    """(2): all dependencies of c hold in x_s, c does not hold in x_s, c holds in x_{s+1}."""
    before, after = turn.x[s], turn.x[s + 1]
    if all(d in before for d in c.depends_on) and c.id not in before and c.id in after:
        return turn.outcomes[c.id].share
    return 0.0


def backfilled_r(turn: SlowTurn, s: int, c: SlowItem) -> float:
    """(3): all dependencies hold before s, c does not hold before s, c becomes true at some step u >= s."""
    before = turn.x[s]
    if all(d in before for d in c.depends_on) and c.id not in before:
        for u in range(s, turn.steps):
            if c.id not in turn.x[u] and c.id in turn.x[u + 1]:
                return turn.outcomes[c.id].share
    return 0.0


def turn_value(checklists: list[SlowTurn]) -> float | None:
    """(6), the mean over the turn's checklists; None if an item is UNSCORED."""
    total = 0.0
    for turn in checklists:
        for c in turn.items:
            if not turn.outcomes[c.id].scored:
                return None
        for s in range(turn.steps):
            for c in turn.items:
                total += c.weight * r(turn, s, c)
    return total / len(checklists)


def trajectory_value(rollout: Rollout, turn_count: int) -> float | None:
    """(4): (1/L) times the sum over the turns; None if one of them has no value."""
    total = 0.0
    for checklists in rollout:
        value = turn_value(checklists)
        if value is None:
            return None
        total += value
    return total / turn_count


def centred(value: float, group: list[float], divide: bool) -> float:
    """(5), (7), (9): (value - mean) / F; 0 where all of the group are equal."""
    mean = sum(group) / len(group)
    if not divide:
        return value - mean
    deviation = math.sqrt(sum((other - mean) ** 2 for other in group) / len(group))
    return (value - mean) / deviation if deviation > 1e-6 else 0.0


def trajectory_advantages(values: list[float | None], divide: bool) -> list[float | None]:
    """(5) over the rollouts that have a value."""
    group = [value for value in values if value is not None]
    return [None if value is None else centred(value, group, divide) for value in values]


def turn_advantage(
    group: list[list[float] | None], rollout: list[float], t: int, over_all: bool, divide: bool
) -> float:
    """(7) over the rollouts that reached turn t, or over all of which those that did not count 0."""
    compared = []
    for other in group:
        if other is not None and t < len(other):
            compared.append(other[t])
        elif other is not None and over_all:
            compared.append(0.0)
    return centred(rollout[t], compared, divide)


def outcomes_of(group: list[Rollout | None], t: int, v: int, c: SlowItem, over_all: bool) -> list[float]:
    """What (8) is the mean of, and F of (9) the deviation of: whether c is ever satisfied in turn t, by rollout;
    not where a dependency of c never holds."""
    outcomes = []
    for rollout in group:
        if rollout is not None and t < len(rollout):
            turn = rollout[t][v]
            if turn.outcomes[c.id].scored:
                held = turn.x[turn.steps]
                ever = c.id in held and all(d in held for d in c.depends_on)
                outcomes.append(turn.outcomes[c.id].share if ever else 0.0)
        elif rollout is not None and over_all:
            outcomes.append(0.0)
    return outcomes


def step_advantage(
    group: list[Rollout | None], rollout: Rollout, t: int, s: int, over_all: bool, divide: bool
) -> float:
    """(10) with (8) and (9): the mean over the eligible items by weight; the mean of that over the checklists."""
    by_checklist = []
    for v, turn in enumerate(rollout[t]):
        above = below = 0.0
        before = turn.x[s]
        for c in turn.items:
            eligible = turn.outcomes[c.id].scored and c.id not in before and all(d in before for d in c.depends_on)
            if eligible:
                a = centred(backfilled_r(turn, s, c), outcomes_of(group, t, v, c, over_all), divide)
                above += c.weight * a
                below += c.weight
        by_checklist.append(above / below if below > 0 else 0.0)
    return sum(by_checklist) / len(by_checklist)
