"""Equations 5 and 7 to 10 of CM2: advantages within one group, at trajectory, turn and step level. Pure.

Axes in names: G rollouts of the group, T turns, S steps of a turn, N items of a turn. Every token of an assistant step
gets its step's (turn's, trajectory's) advantage; tokens of tools and users get none.

An excluded rollout (None: something in it could not be judged, or the server failed) is left out of every baseline and
gets no advantage (None). F is 1 (CM2's final runs) or the population standard deviation of what the baseline is taken
over; where that is at most `EPSILON` all rewards are equal and every advantage is 0.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from reward.rewards import ItemState, backfilled_rewards, dependencies_hold, eligible_items
from store.vocabulary import TurnBaseline

EPSILON = 1e-6
"""A standard deviation at or below this is rounding noise of equal rewards; it is never divided by."""


@dataclass(frozen=True)
class TurnStates:
    """One rollout in one turn: its items and how many steps it took; `step_count` 0 if it did not reach the turn."""

    items: tuple[ItemState, ...]
    step_count: int

    @property
    def reached(self) -> bool:
        return self.step_count > 0


def trajectory_advantages(rewards_G: Sequence[float | None], *, divide_by_std: bool = False) -> list[float | None]:
    """Equation 5: (R − mean) / F. A group with one scored member has nothing to compare with: advantage 0."""
    return _centred(rewards_G, rewards_G, divide_by_std)


def state_advantages(
    rewards_G: Sequence[float | None],
    observations_G: Sequence[Sequence[Hashable]],
    *,
    prior: float = 1.0,
    divide_by_std: bool = False,
) -> list[list[float] | None]:
    """Equation 5 with a baseline for every state instead of one for the group: (R − b(state)) / F for each step.

    `observations_G[g]` is what the world said to rollout g after each of its steps but the last; rollouts that heard
    the same so far are in the same state. b is the mean reward of those that passed through it, held back by `prior`
    further ones with the baseline of the state before: b = (ΣR + prior · b before) / (n + prior), and the group's mean
    at the first step. Once a wrong call has decided a dialogue, what follows is neither blamed nor praised for it.

    A baseline that does not depend on the step's own action leaves the direction of the gradient as it is; that a
    rollout's own reward is in it only makes later steps, about which the group says less, weigh less (as in GiGPO,
    arXiv 2505.10978, whose states are anchors across rollouts).
    """
    values = {g: reward for g, reward in enumerate(rewards_G) if reward is not None}
    advantages_G: list[list[float] | None] = [None] * len(rewards_G)
    if not values:
        return advantages_G
    scored = list(values.values())
    group_mean, scale = _mean(scored), _scale(scored, divide_by_std)
    for g, reward in values.items():
        here, baseline = list(values), group_mean
        steps = [(reward - baseline) / scale]
        for step, heard in enumerate(observations_G[g]):
            here = [h for h in here if len(observations_G[h]) > step and observations_G[h][step] == heard]
            baseline = (math.fsum(values[h] for h in here) + prior * baseline) / (len(here) + prior)
            steps.append((reward - baseline) / scale)
        advantages_G[g] = steps
    return advantages_G


def turn_advantages(
    rewards_G_T: Sequence[Sequence[float | None] | None],
    *,
    baseline: TurnBaseline = TurnBaseline.REACHED,
    divide_by_std: bool = False,
) -> list[list[float | None] | None]:
    """Equation 7: for every rollout the advantages of the turns it reached.

    `rewards_G_T[g]` holds the rewards of the turns that rollout g reached (equation 6), None at a turn that could not
    be scored, or is None itself for an excluded rollout.
    """
    turn_count = max((len(rewards_T) for rewards_T in rewards_G_T if rewards_T is not None), default=0)
    advantages_G_T: list[list[float | None] | None] = [None if rewards is None else [] for rewards in rewards_G_T]
    for turn in range(turn_count):
        own_G = [None if r is None or turn >= len(r) else r[turn] for r in rewards_G_T]
        compared_G = own_G
        if baseline is TurnBaseline.ALL:
            missed = [r is not None and turn >= len(r) for r in rewards_G_T]
            compared_G = [0.0 if miss else own for miss, own in zip(missed, own_G, strict=True)]
        for rewards, row, advantage in zip(
            rewards_G_T, advantages_G_T, _centred(own_G, compared_G, divide_by_std), strict=True
        ):
            if rewards is not None and row is not None and turn < len(rewards):
                row.append(advantage)
    return advantages_G_T


def satisfied_shares(
    turn_G: Sequence[TurnStates | None], *, baseline: TurnBaseline = TurnBaseline.REACHED
) -> list[float | None]:
    """Equation 8: b_N, the share of the rollouts in which the item is ever satisfied in this turn.

    Where something that it depends on never holds it counts as not satisfied, whoever decides it: it could not pay, and
    a judge is not asked about it there, while a check says what it says. Where votes are averaged it is the mean of the
    shares. None where no rollout has the item scored.
    """
    return [_mean(outcomes) if outcomes else None for outcomes in _outcomes_N_G(turn_G, baseline)]


def step_advantages(
    turn_G: Sequence[TurnStates | None],
    *,
    baseline: TurnBaseline = TurnBaseline.REACHED,
    divide_by_std: bool = False,
) -> list[list[float] | None]:
    """Equations 9 and 10 for one turn: for every rollout the advantage of each of its steps.

    A_{s,c} = (r̃_{s,c} − b_c) / F(outcomes of c), which are 0/1 or shares of averaged votes; a step's advantage is the
    mean over its eligible items E weighted by w. A step at which nothing is eligible (or nothing that weighs) gets 0.
    Excluded rollouts get None, those that did not reach the turn an empty list. Raises ValueError if the rollouts'
    checklists differ.
    """
    outcomes_N_G = _outcomes_N_G(turn_G, baseline)
    shares_N = [_mean(outcomes) if outcomes else 0.0 for outcomes in outcomes_N_G]
    scales_N = [_scale(outcomes, divide_by_std) if outcomes else 1.0 for outcomes in outcomes_N_G]
    return [None if states is None else _steps_of(states, shares_N, scales_N) for states in turn_G]


def dialogue_step_advantages(
    states_G_T_V: Sequence[Sequence[Sequence[TurnStates]] | None],
    *,
    baseline: TurnBaseline = TurnBaseline.REACHED,
    divide_by_std: bool = False,
) -> list[list[list[float]] | None]:
    """Equations 9 and 10 for whole rollouts: for each the turns it reached, and in each the advantage of every step.

    `states_G_T_V[g][t]` has an entry for each of the V checklists of turn t; a step's advantage is the mean over them
    (equation 10 is linear in the items' advantages; where nothing of a checklist is eligible it says 0). None for an
    excluded rollout. Raises ValueError where the rollouts' checklists differ or a turn that was reached has none.
    """
    advantages_G_T: list[list[list[float]] | None] = [None if states is None else [] for states in states_G_T_V]
    for turn in range(max((len(states) for states in states_G_T_V if states is not None), default=0)):
        reached = [states[turn] for states in states_G_T_V if states is not None and turn < len(states)]
        counts = {len(states_V) for states_V in reached}
        if len(counts) > 1 or 0 in counts:
            raise ValueError(f"turn {turn} has {sorted(counts)} checklists in the rollouts of one group")
        by_checklist = [
            step_advantages(
                [
                    None if states is None else states[turn][v] if turn < len(states) else _not_reached(reached[0][v])
                    for states in states_G_T_V
                ],
                baseline=baseline,
                divide_by_std=divide_by_std,
            )
            for v in range(len(reached[0]))
        ]
        for g, row in enumerate(advantages_G_T):
            states_T_V = states_G_T_V[g]
            if row is not None and states_T_V is not None and turn < len(states_T_V):
                steps_V_S = [advantages_G[g] or [] for advantages_G in by_checklist]
                row.append([_mean(of_step) for of_step in zip(*steps_V_S, strict=True)])
    return advantages_G_T


def _not_reached(states: TurnStates) -> TurnStates:
    """The same checklist in a rollout that stopped before the turn."""
    return TurnStates(tuple(replace(item, first_satisfied=None, scored=True) for item in states.items), 0)


def _steps_of(states: TurnStates, shares_N: list[float], scales_N: list[float]) -> list[float]:
    backfilled_S_N = backfilled_rewards(states.items, states.step_count)
    eligible_S_N = eligible_items(states.items, states.step_count)
    advantages_S = []
    for rewards_N, eligible_N in zip(backfilled_S_N, eligible_S_N, strict=True):
        chosen = [n for n, eligible in enumerate(eligible_N) if eligible]
        weight = math.fsum(states.items[n].weight for n in chosen)
        weighted = math.fsum(states.items[n].weight * (rewards_N[n] - shares_N[n]) / scales_N[n] for n in chosen)
        advantages_S.append(weighted / weight if weight > 0 else 0.0)
    return advantages_S


def _outcomes_N_G(turn_G: Sequence[TurnStates | None], baseline: TurnBaseline) -> list[list[float]]:
    """For every item the 0/1 outcomes of the rollouts that its baseline is taken over."""
    members = [states for states in turn_G if states is not None]
    if len({tuple((item.key, item.weight, item.depends_on) for item in states.items) for states in members}) > 1:
        raise ValueError("the rollouts of a group have different checklists in this turn: they are not one scenario's")
    compared = [states for states in members if states.reached or baseline is TurnBaseline.ALL]
    return [
        [_outcome(item, states) for states in compared if (item := states.items[n]).scored]
        for n in range(len(members[0].items) if members else 0)
    ]


def _outcome(item: ItemState, states: TurnStates) -> float:
    return item.worth if dependencies_hold(item, states.items, states.step_count) else 0.0


def _centred(
    own_G: Sequence[float | None], compared_G: Sequence[float | None], divide_by_std: bool
) -> list[float | None]:
    compared = [value for value in compared_G if value is not None]
    if not compared:
        return [None] * len(own_G)
    mean, scale = _mean(compared), _scale(compared, divide_by_std)
    return [None if value is None else (value - mean) / scale for value in own_G]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _scale(values: Sequence[float], divide_by_std: bool) -> float:
    if not divide_by_std:
        return 1.0
    mean = _mean(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    # Infinity makes the advantages of an all-equal group exactly 0 instead of blowing rounding noise up.
    return deviation if deviation > EPSILON else math.inf
