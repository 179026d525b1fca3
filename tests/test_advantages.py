"""Equations 5 and 7 to 10 on hand-worked cases."""

import math

import pytest

from reward.advantages import (
    TurnStates,
    dialogue_step_advantages,
    satisfied_shares,
    state_advantages,
    step_advantages,
    trajectory_advantages,
    turn_advantages,
)
from reward.rewards import ItemState
from store.vocabulary import TurnBaseline

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


def test_shares_count_what_could_not_pay_as_not_satisfied() -> None:
    """Two rollouts, both with the reply; only the first has the call that it depends on. A check says that the reply
    holds in both, a judge is not asked in the second: b = 1/2 either way. That the call came after the reply, in the
    third, is no matter of (8): 2/3."""

    def played(called: int | None, replied: int | None) -> TurnStates:
        return _turn(ItemState("call", 0.5, called), ItemState("reply", 0.5, replied, ("call",)), steps=3)

    assert satisfied_shares([played(0, 1), played(None, 1)]) == [0.5, 0.5]
    assert satisfied_shares([played(0, 1), played(None, None)]) == [0.5, 0.5]
    assert satisfied_shares([played(0, 1), played(None, 1), played(2, 1)]) == close([2 / 3, 2 / 3])


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


def test_the_smallest_group() -> None:
    """G = 2: R = 0.75 and 0.25: mean 0.5, A = ±0.25; divided by the std 0.25: ±1."""
    assert trajectory_advantages([0.75, 0.25]) == [0.25, -0.25]
    assert trajectory_advantages([0.75, 0.25], divide_by_std=True) == [1.0, -1.0]


def test_turn_over_all_divided_by_std() -> None:
    """Turn 1: 0.8, stopped (0), 0.4, excluded: mean 0.4, variance (0.16 + 0.16 + 0) / 3, std 0.3266.
    A = 0.4 / 0.3266 = 1.2247 and 0. Over those that reached it: mean 0.6, std 0.2: A = ±1."""
    rewards = [[1.0, 0.8], [1.0], [1.0, 0.4], None]
    of_all = turn_advantages(rewards, baseline=TurnBaseline.ALL, divide_by_std=True)
    assert of_all == [close([0.0, math.sqrt(1.5)]), close([0.0]), close([0.0, 0.0]), None]
    of_reached = turn_advantages(rewards, divide_by_std=True)
    assert of_reached == [close([0.0, 1.0]), close([0.0]), close([0.0, -1.0]), None]


def test_the_policy_that_stops_others_is_seen_by_the_baseline_over_all() -> None:
    """Two rollouts reach turn 1 with 0.5 each, two do not. Among those that did, nothing is better than anything: 0.
    Over all, mean 0.25: having got there at all is worth 0.25."""
    rewards = [[1.0, 0.5], [1.0, 0.5], [0.0], [0.0]]
    assert [row[1] for row in turn_advantages(rewards) if row and len(row) > 1] == [0.0, 0.0]
    over_all = turn_advantages(rewards, baseline=TurnBaseline.ALL)
    assert [row[1] for row in over_all if row and len(row) > 1] == [0.25, 0.25]


def test_step_advantage_with_shares_of_votes() -> None:
    """One item, 1 of 3 votes, all, none: b = (1/3 + 1 + 0) / 3 = 4/9. A = −1/9, 5/9, −4/9.
    By the outcomes' std: variance ((1/9)² + (5/9)² + (4/9)²) / 3 = 42/243, std 0.4157: A of the second 1.3363."""
    turn_G = [
        _turn(ItemState("a", 1.0, 0, share=1 / 3), steps=1),
        _turn(ItemState("a", 1.0, 0), steps=1),
        _turn(ItemState("a", 1.0, None), steps=1),
    ]
    assert satisfied_shares(turn_G) == close([4 / 9])
    assert step_advantages(turn_G) == [close([-1 / 9]), close([5 / 9]), close([-4 / 9])]
    assert step_advantages(turn_G, divide_by_std=True)[1] == close([5 / 9 / math.sqrt(42 / 243)])


def test_step_advantage_leaves_out_an_item_that_nobody_could_score() -> None:
    """a (0.5) passes in 0 and fails in 1; b (0.5) is UNSCORED in 0 and fails in 1. b_a = 1/2, b_b = 0 (of rollout 1).
    Rollout 0: a alone is eligible: 0.5. Rollout 1: (0.5 · (−0.5) + 0.5 · 0) / 1 = −0.25."""
    turn_G = [
        _turn(ItemState("a", 0.5, 0), ItemState("b", 0.5, None, scored=False), steps=1),
        _turn(ItemState("a", 0.5, None), ItemState("b", 0.5, None), steps=1),
    ]
    assert step_advantages(turn_G) == [close([0.5]), close([-0.25])]


def test_steps_of_whole_rollouts_and_both_baselines() -> None:
    """Turn 0: a in rollouts 0 and 1 at once, in 2 never (it stops there): b = 2/3, A = 1/3, 1/3, −2/3.
    Turn 1: c at step 1 of rollout 0, never in rollout 1. Among those that got there b = 1/2: A = 0.5, 0.5 and −0.5.
    Over all b = 1/3: A = 2/3, 2/3 and −1/3; rollout 2 has no step there. Rollout 3 is excluded."""
    yes, no = _turn(ItemState("a", 1.0, 0), steps=1), _turn(ItemState("a", 1.0, None), steps=1)
    late, never = _turn(ItemState("c", 1.0, 1), steps=2), _turn(ItemState("c", 1.0, None), steps=1)
    group = [[[yes], [late]], [[yes], [never]], [[no]], None]
    assert dialogue_step_advantages(group) == [
        [close([1 / 3]), close([0.5, 0.5])],
        [close([1 / 3]), close([-0.5])],
        [close([-2 / 3])],
        None,
    ]
    assert dialogue_step_advantages(group, baseline=TurnBaseline.ALL) == [
        [close([1 / 3]), close([2 / 3, 2 / 3])],
        [close([1 / 3]), close([-1 / 3])],
        [close([-2 / 3])],
        None,
    ]


def test_step_advantages_of_several_checklists_are_averaged() -> None:
    """Checklist A: a at step 0 in rollout 0, never in 1: b = 1/2: A = 0.5, then nothing eligible: 0; −0.5, −0.5.
    Checklist B: b at step 1 in both: b = 1: A = 0 everywhere. The means: 0.25, 0 and −0.25, −0.25."""
    both = _turn(ItemState("b", 1.0, 1), steps=2)
    first = [_turn(ItemState("a", 1.0, 0), steps=2), both]
    second = [_turn(ItemState("a", 1.0, None), steps=2), both]
    assert dialogue_step_advantages([[first], [second]]) == [[close([0.25, 0.0])], [close([-0.25, -0.25])]]
    with pytest.raises(ValueError, match=r"turn 0 has \[1, 2\] checklists"):
        dialogue_step_advantages([[first], [second[:1]]])
