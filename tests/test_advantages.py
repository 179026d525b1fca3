"""Equations 5 and 7 to 10 on hand-worked cases, and against a slow transcription of the paper's formulas."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.advantages import (
    TurnBaseline,
    TurnStates,
    satisfied_shares,
    state_advantages,
    step_advantages,
    trajectory_advantages,
    turn_advantages,
)
from reward.rewards import ItemState

close = pytest.approx


def test_trajectory_without_division() -> None:
    """R = 1, 0.5, 0, 0.5: mean 0.5, so A = 0.5, 0, −0.5, 0."""
    assert trajectory_advantages([1.0, 0.5, 0.0, 0.5]) == close([0.5, 0.0, -0.5, 0.0])


def test_trajectory_divided_by_the_population_standard_deviation() -> None:
    """R = 1, 0, 1, 0: mean 0.5, variance (4 · 0.25) / 4 = 0.25, std 0.5 (the sample's would be 0.577): A = ±1."""
    assert trajectory_advantages([1.0, 0.0, 1.0, 0.0], divide_by_std=True) == close([1.0, -1.0, 1.0, -1.0])


def test_trajectory_with_an_excluded_member() -> None:
    """R = 1, none, 0: the mean over the two scored ones is 0.5 (a zero for the outage would make it 1/3)."""
    assert trajectory_advantages([1.0, None, 0.0]) == [0.5, None, -0.5]


def test_trajectory_of_an_all_equal_group() -> None:
    """R = 0.1 + 0.2 and 0.3 differ by rounding alone: nothing to learn, with or without division."""
    assert trajectory_advantages([0.1 + 0.2, 0.3, 0.3], divide_by_std=True) == [0.0, 0.0, 0.0]
    assert trajectory_advantages([0.7, 0.7]) == [0.0, 0.0]


def test_trajectory_groups_of_one_and_none() -> None:
    assert trajectory_advantages([0.8, None], divide_by_std=True) == [0.0, None]
    assert trajectory_advantages([None, None]) == [None, None]
    assert trajectory_advantages([]) == []


def test_state_baselines_by_hand() -> None:
    """R = 1, 0, 0, 0 with mean 1/4, the baseline of every first step.

    After it the world says "ok" to 0 and 1 and "error" to 2 and 3. State "ok": b = (1 + 0 + 1/4) / 3 = 5/12, so
    A = 7/12 and -5/12. State "error": b = (0 + 0 + 1/4) / 3 = 1/12, so A = -1/12. Rollout 3 hears "error" again,
    alone: b = (0 + 1/12) / 2 = 1/24.
    """
    advantages = state_advantages([1.0, 0.0, 0.0, 0.0], [["ok"], ["ok"], ["error"], ["error", "error"]])
    assert advantages == [
        close([3 / 4, 7 / 12]),
        close([-1 / 4, -5 / 12]),
        close([-1 / 4, -1 / 12]),
        close([-1 / 4, -1 / 12, -1 / 24]),
    ]


def test_states_of_an_excluded_member_are_nobodys_baseline() -> None:
    """Without rollout 1, b at "ok" is (1 + 1/2) / 2 = 3/4."""
    advantages = state_advantages([1.0, None, 0.0], [["ok"], ["ok"], []])
    assert advantages == [close([1 / 2, 1 / 4]), None, close([-1 / 2])]
    assert state_advantages([None, None], [[], ["x"]]) == [None, None]


def test_a_state_that_everybody_passes_has_the_baseline_of_the_group() -> None:
    rewards = [1.0, 0.25, 0.25, 0.5]
    advantages = state_advantages(rewards, [["same", "same"]] * 4, divide_by_std=True)
    for steps, whole in zip(advantages, trajectory_advantages(rewards, divide_by_std=True), strict=True):
        assert steps is not None and whole is not None
        assert steps == close([whole] * 3)


def test_turn_baseline_over_those_that_reached_the_turn() -> None:
    """Turn 0: 1, 0.4, 0.4 with mean 0.6. Turn 1 reached by two: 1 and 0.5 with mean 0.75."""
    advantages = turn_advantages([[1.0, 1.0], [0.4], [0.4, 0.5]])
    assert advantages[0] == close([0.4, 0.25])
    assert advantages[1] == close([-0.2])
    assert advantages[2] == close([-0.2, -0.25])


def test_turn_baseline_over_all_counts_zero_where_a_rollout_stopped() -> None:
    """Turn 1: 1, 0 (stopped), 0.5 with mean 0.5: A = 0.5 and 0; the one that stopped has no token there."""
    advantages = turn_advantages([[1.0, 1.0], [0.4], [0.4, 0.5]], baseline=TurnBaseline.ALL)
    assert advantages[0] == close([0.4, 0.5])
    assert advantages[1] == close([-0.2])
    assert advantages[2] == close([-0.2, 0.0])


def test_turn_divided_by_std() -> None:
    """Turn 0: 0.8 and 0.4: mean 0.6, std 0.2: A = ±1."""
    advantages = turn_advantages([[0.8], [0.4]], divide_by_std=True)
    assert advantages == [close([1.0]), close([-1.0])]


def test_turn_with_excluded_and_unscored_members() -> None:
    """Rollout 1 is excluded; rollout 2's second turn could not be scored. Turn 0: 1 and 0, mean 0.5. Turn 1: one."""
    advantages = turn_advantages([[1.0, 1.0], None, [0.0, None]], baseline=TurnBaseline.ALL)
    assert advantages == [[0.5, 0.0], None, [-0.5, None]]


def _turn(*items: ItemState, steps: int) -> TurnStates:
    return TurnStates(items, steps)


def test_shares() -> None:
    """Item a is ever satisfied in 2 of 4 rollouts, b in 1 of 4; without the one that never got there 2 of 3, 1 of 3."""
    turn_G = [
        _turn(ItemState("a", 0.5, 0), ItemState("b", 0.5, 1, ("a",)), steps=2),
        _turn(ItemState("a", 0.5, 1), ItemState("b", 0.5, None, ("a",)), steps=2),
        _turn(ItemState("a", 0.5, None), ItemState("b", 0.5, None, ("a",)), steps=1),
        _turn(ItemState("a", 0.5, None), ItemState("b", 0.5, None, ("a",)), steps=0),
        None,
    ]
    assert satisfied_shares(turn_G, baseline=TurnBaseline.ALL) == close([0.5, 0.25])
    assert satisfied_shares(turn_G) == close([2 / 3, 1 / 3])


def test_shares_leave_out_what_nobody_could_score() -> None:
    turn_G = [
        _turn(ItemState("a", 1.0, 0), steps=1),
        _turn(ItemState("a", 1.0, None, scored=False), steps=1),
    ]
    assert satisfied_shares(turn_G) == [1.0]
    assert satisfied_shares(turn_G[1:]) == [None]


def test_step_advantage_of_one_item() -> None:
    """One item, satisfied at step 1 of 3 in rollout 0, never in rollout 1: b = 1/2.
    Rollout 0: r̃ = 1, 1 then not eligible: A = 0.5, 0.5, 0. Rollout 1 (two steps): r̃ = 0: A = −0.5, −0.5."""
    turn_G = [_turn(ItemState("a", 1.0, 1), steps=3), _turn(ItemState("a", 1.0, None), steps=2)]
    assert step_advantages(turn_G) == [close([0.5, 0.5, 0.0]), close([-0.5, -0.5])]


def test_step_advantage_divided_by_the_std_of_the_items_outcomes() -> None:
    """Outcomes 1, 0, 0, 0: b = 1/4, std = sqrt(1/4 · 3/4) = 0.4330. A = 0.75 / 0.4330 = 1.7321 and −0.25 / 0.4330."""
    turn_G = [_turn(ItemState("a", 1.0, 0), steps=1), *[_turn(ItemState("a", 1.0, None), steps=1)] * 3]
    advantages = step_advantages(turn_G, divide_by_std=True)
    assert advantages[0] == close([math.sqrt(3)])
    assert advantages[1] == close([-1 / math.sqrt(3)])


def test_step_advantage_averages_over_the_eligible_items_by_weight() -> None:
    """a (0.75) and b (0.25, depends on a). Rollout 0: a at 0, b at 1. Rollout 1: a at 0, b never. b_a = 1, b_b = 0.5.
    Step 0: only a eligible: (1 − 1) · 0.75 / 0.75 = 0. Step 1: only b: rollout 0 gets 1 − 0.5, rollout 1 gets −0.5."""
    turn_G = [
        _turn(ItemState("a", 0.75, 0), ItemState("b", 0.25, 1, ("a",)), steps=2),
        _turn(ItemState("a", 0.75, 0), ItemState("b", 0.25, None, ("a",)), steps=2),
    ]
    assert step_advantages(turn_G) == [close([0.0, 0.5]), close([0.0, -0.5])]


def test_step_advantage_mixes_items_by_weight() -> None:
    """a (0.8) and b (0.2) without dependencies, one step. Rollout 0 has a alone, rollout 1 b alone: b = 1/2 each.
    Rollout 0: 0.8 · 0.5 + 0.2 · (−0.5) = 0.3. Rollout 1: 0.8 · (−0.5) + 0.2 · 0.5 = −0.3."""
    turn_G = [
        _turn(ItemState("a", 0.8, 0), ItemState("b", 0.2, None), steps=1),
        _turn(ItemState("a", 0.8, None), ItemState("b", 0.2, 0), steps=1),
    ]
    assert step_advantages(turn_G) == [close([0.3]), close([-0.3])]


def test_step_advantage_where_nothing_is_eligible_or_weighs() -> None:
    """After a is satisfied and b waits for it in vain, E is empty or without weight: 0, no division by zero."""
    turn_G = [
        _turn(ItemState("a", 1.0, 0), ItemState("z", 0.0, None), steps=2),
        _turn(ItemState("a", 1.0, 0), ItemState("z", 0.0, None), steps=1),
    ]
    assert step_advantages(turn_G) == [[0.0, 0.0], [0.0]]


def test_step_advantage_with_excluded_members_and_ones_that_did_not_reach_the_turn() -> None:
    """Outcomes over all three scored ones: 1, 0, 0 (never got there): b = 1/3, over those that reached it 1/2."""
    turn_G = [
        _turn(ItemState("a", 1.0, 0), steps=1),
        None,
        _turn(ItemState("a", 1.0, None), steps=1),
        _turn(ItemState("a", 1.0, None), steps=0),
    ]
    assert step_advantages(turn_G, baseline=TurnBaseline.ALL) == [close([2 / 3]), None, close([-1 / 3]), []]
    assert step_advantages(turn_G) == [close([0.5]), None, close([-0.5]), []]


def test_step_advantage_refuses_groups_of_different_checklists() -> None:
    with pytest.raises(ValueError, match="different checklists"):
        step_advantages([_turn(ItemState("a", 1.0, 0), steps=1), _turn(ItemState("b", 1.0, 0), steps=1)])


REWARDS = st.lists(st.none() | st.floats(0, 1), max_size=12)


@settings(deadline=None)
@given(REWARDS, st.booleans())
def test_trajectory_advantages_sum_to_zero_and_stay_in_bounds(rewards: list[float | None], divide: bool) -> None:
    advantages = trajectory_advantages(rewards, divide_by_std=divide)
    assert [a is None for a in advantages] == [r is None for r in rewards]
    scored = [a for a in advantages if a is not None]
    assert math.fsum(scored) == close(0.0, abs=1e-6)
    # (x − mean) / std of n numbers is at most sqrt(n − 1) in size; undivided it is at most the rewards' range.
    assert all(abs(a) <= (math.sqrt(len(scored)) + 1e-9 if divide else 1.0) for a in scored)


@settings(deadline=None)
@given(REWARDS, st.booleans(), st.randoms())
def test_the_order_of_the_group_does_not_matter(rewards: list[float | None], divide: bool, random: Any) -> None:
    order = list(range(len(rewards)))
    random.shuffle(order)
    advantages = trajectory_advantages(rewards, divide_by_std=divide)
    shuffled = trajectory_advantages([rewards[i] for i in order], divide_by_std=divide)
    assert shuffled == [advantages[i] for i in order]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 4))
def test_excluded_members_change_nothing_for_the_others(rewards: list[float], excluded: int) -> None:
    padded: list[float | None] = [*rewards, *[None] * excluded]
    assert trajectory_advantages(padded)[: len(rewards)] == trajectory_advantages(rewards)


@st.composite
def groups(draw: st.DrawFn) -> list[TurnStates | None]:
    """A group's outcomes in one turn: one checklist, rollouts of differing length, excluded and unreached ones."""
    raw = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    total = sum(raw) or 1
    depends_N = [
        tuple(draw(st.lists(st.sampled_from([str(m) for m in range(n)]), unique=True))) if n else ()
        for n in range(len(raw))
    ]
    turn_G: list[TurnStates | None] = []
    for _ in range(draw(st.integers(1, 5))):
        steps = draw(st.integers(0, 4))
        firsts = [draw(st.none() | st.integers(0, steps - 1)) if steps else None for _ in raw]
        items = tuple(
            ItemState(str(n), raw[n] / total, firsts[n], depends_N[n], scored=steps == 0 or draw(st.integers(0, 5)) > 0)
            for n in range(len(raw))
        )
        turn_G.append(draw(st.sampled_from([TurnStates(items, steps)] * 5 + [None])))
    return turn_G


def transcribed(turn_G: list[TurnStates | None], over_all: bool, divide: bool) -> list[list[float] | None]:
    """Equations 3 and 8 to 10 as they stand in CM2.md, state by state, without a thought for speed."""

    def sat(states: TurnStates, key: str, x: int) -> bool:
        item = next(item for item in states.items if item.key == key)
        return item.scored and item.first_satisfied is not None and item.first_satisfied < x

    result: list[list[float] | None] = []
    for states in turn_G:
        if states is None:
            result.append(None)
            continue
        row = []
        for s in range(states.step_count):
            above = below = 0.0
            for item in states.items:
                if not item.scored or sat(states, item.key, s):
                    continue
                if not all(sat(states, key, s) for key in item.depends_on):
                    continue
                r = 1.0 if any(sat(states, item.key, u + 1) for u in range(s, states.step_count)) else 0.0
                outcomes = []
                for other in turn_G:
                    if other is not None and (over_all or other.step_count > 0):
                        same = next(i for i in other.items if i.key == item.key)
                        if same.scored:
                            outcomes.append(1.0 if sat(other, item.key, other.step_count) else 0.0)
                b = sum(outcomes) / len(outcomes)
                f = math.sqrt(sum((o - b) ** 2 for o in outcomes) / len(outcomes)) if divide else 1.0
                above += item.weight * ((r - b) / f if f > 1e-6 else 0.0)
                below += item.weight
            row.append(above / below if below > 0 else 0.0)
        result.append(row)
    return result


@settings(deadline=None)
@given(groups(), st.booleans(), st.booleans())
def test_step_advantages_agree_with_the_transcription(
    turn_G: list[TurnStates | None], over_all: bool, divide: bool
) -> None:
    baseline = TurnBaseline.ALL if over_all else TurnBaseline.REACHED
    advantages = step_advantages(turn_G, baseline=baseline, divide_by_std=divide)
    expected = transcribed(turn_G, over_all, divide)
    assert [a if a is None else close(a) for a in expected] == advantages


@settings(deadline=None)
@given(st.lists(st.none() | st.lists(st.floats(0, 1), max_size=4), max_size=6), st.booleans(), st.booleans())
def test_turn_advantages_agree_with_the_transcription(
    rewards_G_T: list[list[float] | None], over_all: bool, divide: bool
) -> None:
    baseline = TurnBaseline.ALL if over_all else TurnBaseline.REACHED
    advantages = turn_advantages(rewards_G_T, baseline=baseline, divide_by_std=divide)
    for g, rewards in enumerate(rewards_G_T):
        if rewards is None:
            assert advantages[g] is None
            continue
        expected = []
        for t, own in enumerate(rewards):
            over = [r[t] if t < len(r) else 0.0 for r in rewards_G_T if r is not None and (over_all or t < len(r))]
            mean = sum(over) / len(over)
            f = math.sqrt(sum((r - mean) ** 2 for r in over) / len(over)) if divide else 1.0
            expected.append((own - mean) / f if f > 1e-6 else 0.0)
        assert advantages[g] == close(expected, rel=1e-4, abs=1e-6)
