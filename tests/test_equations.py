"""Rewards and advantages against a slow transcription of the paper's equations, on ten thousand random groups."""

import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from reward.advantages import (
    TurnStates,
    dialogue_step_advantages,
    satisfied_shares,
    trajectory_advantages,
    turn_advantages,
)
from reward.outcomes import mean_turn_reward
from reward.rewards import ItemState, backfilled_rewards, step_rewards, trajectory_reward
from store.vocabulary import TurnBaseline
from tests import slow_equations as slow
from tests.slow_equations import Rollout, SlowItem, SlowOutcome, SlowTurn

CASES = 10_000
SHARES = (1.0, 1.0, 1.0, 2 / 3, 1 / 3, 0.5)


@dataclass(frozen=True)
class Case:
    """A group of rollouts of one scenario; `group[g]` None where it is excluded."""

    turn_count: int
    group: list[Rollout | None]
    over_all: bool
    divide: bool


def a_checklist(rng: random.Random) -> tuple[SlowItem, ...]:
    """Weights that add to 1, some of them 0; items in any order, depending on others without a cycle."""
    raw = [rng.randrange(5) for _ in range(rng.randint(1, 3))]
    total = sum(raw) or 1
    ids = [str(n) for n in range(len(raw))]
    items = [
        SlowItem(ids[n], weight / total, tuple(d for d in ids[:n] if rng.random() < 0.3))
        for n, weight in enumerate(raw)
    ]
    rng.shuffle(items)
    return tuple(items)


def a_case(rng: random.Random) -> Case:
    turn_count = rng.choice((1, 1, 1, 2, 3))
    averaged, unscored = rng.random() < 0.3, rng.random() < 0.2
    checklists = [[a_checklist(rng) for _ in range(rng.choice((1, 1, 1, 2)))] for _ in range(turn_count)]

    def outcome(steps: int) -> SlowOutcome:
        first = rng.randrange(steps) if rng.random() < 0.6 else None
        scored = not (unscored and rng.random() < 0.2)
        return SlowOutcome(first, rng.choice(SHARES) if averaged else 1.0, scored)

    def rollout() -> Rollout | None:
        if rng.random() < 0.1:
            return None
        reached = rng.randint(1, turn_count)
        turns = []
        for variants in checklists[:reached]:
            steps = rng.randint(1, 3)
            turns.append([SlowTurn(c, {item.id: outcome(steps) for item in c}, steps) for c in variants])
        return turns

    return Case(
        turn_count, [rollout() for _ in range(rng.choice((2, 2, 3, 4)))], rng.random() < 0.5, rng.random() < 0.5
    )


def states_of(turn: SlowTurn) -> TurnStates:
    items = []
    for item in turn.items:
        said = turn.outcomes[item.id]
        items.append(ItemState(item.id, item.weight, said.first, item.depends_on, said.scored, said.share))
    return TurnStates(tuple(items), turn.steps)


def check(case: Case) -> None:
    """Raises AssertionError at the first value that differs."""
    baseline = TurnBaseline.ALL if case.over_all else TurnBaseline.REACHED
    over: dict[str, Any] = {"baseline": baseline, "divide_by_std": case.divide}
    states_G_T_V = [
        None if rollout is None else [[states_of(turn) for turn in checklists] for checklists in rollout]
        for rollout in case.group
    ]
    values: list[float | None] = []
    turn_values: list[list[float] | None] = []
    for rollout, states_T_V in zip(case.group, states_G_T_V, strict=True):
        value, by_turn = None, None
        if rollout is not None and states_T_V is not None:
            for checklists, states_V in zip(rollout, states_T_V, strict=True):
                for turn, states in zip(checklists, states_V, strict=True):
                    check_steps(turn, states)
            by_turn = [mean_turn_reward([states.items for states in states_V]) for states_V in states_T_V]
            same(by_turn, [slow.turn_value(checklists) for checklists in rollout])
            value = trajectory_reward(by_turn, case.turn_count)
            same(value, slow.trajectory_value(rollout, case.turn_count))
        values.append(value)
        turn_values.append(None if value is None else by_turn)
    same(trajectory_advantages(values, divide_by_std=case.divide), slow.trajectory_advantages(values, case.divide))
    same(turn_advantages(turn_values, **over), slow_turns(case, turn_values))
    same(dialogue_step_advantages(states_G_T_V, **over), slow_steps(case))
    first = [None if states is None else states[0][0] for states in states_G_T_V]
    same(satisfied_shares(first, baseline=baseline), slow_shares(case))


def check_steps(turn: SlowTurn, states: TurnStates) -> None:
    steps = range(turn.steps)
    same(step_rewards(states.items, turn.steps), [[slow.r(turn, s, c) for c in turn.items] for s in steps])
    backfilled = [[slow.backfilled_r(turn, s, c) for c in turn.items] for s in steps]
    same(backfilled_rewards(states.items, turn.steps), backfilled)


def slow_turns(case: Case, values: list[list[float] | None]) -> list[list[float] | None]:
    return [
        None if own is None
        else [slow.turn_advantage(values, own, t, case.over_all, case.divide) for t in range(len(own))]
        for own in values
    ]  # fmt: skip


def slow_steps(case: Case) -> list[list[list[float]] | None]:
    return [
        None if rollout is None
        else [
            [slow.step_advantage(case.group, rollout, t, s, case.over_all, case.divide) for s in range(turn[0].steps)]
            for t, turn in enumerate(rollout)
        ]
        for rollout in case.group
    ]  # fmt: skip


def slow_shares(case: Case) -> list[float | None]:
    """(8) of the first turn's first checklist."""
    items = next((rollout[0][0].items for rollout in case.group if rollout is not None), ())
    outcomes_N = [slow.outcomes_of(case.group, 0, 0, c, case.over_all) for c in items]
    return [sum(outcomes) / len(outcomes) if outcomes else None for outcomes in outcomes_N]


def same(found: object, expected: object) -> None:
    """Equal, lists within lists, up to rounding."""
    if found == expected:
        return
    if isinstance(found, list) and isinstance(expected, list):
        assert len(found) == len(expected), (found, expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(found, float) and isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9), (found, expected)
    else:
        raise AssertionError((found, expected))


def test_ten_thousand_random_groups_agree_with_the_equations_as_printed() -> None:
    rng = random.Random(20261122)
    seen: Counter[str] = Counter()
    for number in range(CASES):
        case = a_case(rng)
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"case {number}: {error}: {case}") from error
        members = [rollout for rollout in case.group if rollout is not None]
        seen["excluded"] += len(members) < len(case.group)
        seen["several checklists"] += any(len(turn) > 1 for rollout in members for turn in rollout)
        seen["stopped early"] += len({len(rollout) for rollout in members}) > 1
        outcomes = [o for rollout in members for turn in rollout for c in turn for o in c.outcomes.values()]
        seen["shares"] += any(o.share < 1 for o in outcomes)
        seen["unscored"] += not all(o.scored for o in outcomes)
    assert min(seen.values()) > CASES / 20 and len(seen) == 5, f"the cases are too tame: {seen}"
