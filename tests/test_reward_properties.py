"""What must hold of every reward and advantage: bounds, sums, and what may not matter to them."""

import math
import random as randomness
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.advantages import (
    TurnStates,
    dialogue_step_advantages,
    satisfied_shares,
    step_advantages,
    trajectory_advantages,
    turn_advantages,
)
from reward.outcomes import reward_of
from reward.rewards import ItemState, step_rewards, trajectory_reward, turn_reward
from store.checklists import without_item
from store.records import Item, check_checklist
from store.verdicts import Verdict
from store.vocabulary import FocusOn, Outcome, TurnBaseline, VerdictSource

cheap = settings(deadline=None, max_examples=60)
close = pytest.approx


@st.composite
def checklists(draw: st.DrawFn) -> tuple[ItemState, ...]:
    """Items that nobody has satisfied yet; weights add to 1, dependencies point backwards."""
    raw = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any))
    items: list[ItemState] = []
    for n, weight in enumerate(raw):
        keys = [item.key for item in items]
        depends_on = draw(st.lists(st.sampled_from(keys), unique=True, max_size=2)) if keys else []
        items.append(ItemState(str(n), weight / sum(raw), None, tuple(depends_on)))
    return tuple(items)


def rollouts(items: tuple[ItemState, ...], unscored: bool = True) -> st.SearchStrategy[TurnStates]:
    """What a rollout may make of the items in 1 to 4 steps; averaged votes and UNSCORED items among them."""

    @st.composite
    def one(draw: st.DrawFn) -> TurnStates:
        steps = draw(st.integers(1, 4))
        played = []
        for item in items:
            first = draw(st.none() | st.integers(0, steps - 1))
            share = draw(st.sampled_from([1.0, 1.0, 2 / 3, 1 / 3]))
            scored = not unscored or draw(st.integers(0, 7)) > 0
            played.append(replace(item, first_satisfied=first, share=share, scored=scored))
        return TurnStates(tuple(played), steps)

    return one()


turns = checklists().flatmap(lambda items: rollouts(items, unscored=False))
groups = checklists().flatmap(lambda items: st.lists(rollouts(items), min_size=2, max_size=5))
baselines = st.sampled_from(TurnBaseline)
REWARDS = st.lists(st.none() | st.floats(0, 1), max_size=12)
TURN_REWARDS = st.lists(st.none() | st.lists(st.floats(0, 1), max_size=4), max_size=6)


@cheap
@given(turns)
def test_a_turn_pays_between_nothing_and_one_and_its_steps_add_up_to_it(turn: TurnStates) -> None:
    reward = turn_reward(turn.items)
    assert reward is not None and -1e-9 <= reward <= 1 + 1e-9
    paid_S_N = step_rewards(turn.items, turn.step_count)
    total = math.fsum(item.weight * paid for row in paid_S_N for item, paid in zip(turn.items, row, strict=True))
    assert total == close(reward)
    assert all(sum(paid > 0 for paid in column) <= 1 for column in zip(*paid_S_N, strict=True)), "an item pays once"


@cheap
@given(st.lists(turns, max_size=3), st.integers(0, 2))
def test_a_trajectory_pays_between_nothing_and_one(reached: list[TurnStates], missed: int) -> None:
    turn_count = max(1, len(reached) + missed)
    reward = trajectory_reward([turn_reward(turn.items) for turn in reached], turn_count)
    assert reward is not None and -1e-9 <= reward <= len(reached) / turn_count + 1e-9


@cheap
@given(turns, st.randoms())
def test_the_order_of_the_items_does_not_matter(turn: TurnStates, random: Any) -> None:
    items = list(turn.items)
    random.shuffle(items)
    assert turn_reward(items) == turn_reward(turn.items)


@cheap
@given(groups, baselines, st.booleans(), st.randoms())
def test_the_order_of_the_items_does_not_matter_to_steps(
    group: list[TurnStates], baseline: TurnBaseline, divide: bool, random: Any
) -> None:
    """The same order for all rollouts of the group, as a checklist has one."""
    order = list(range(len(group[0].items)))
    random.shuffle(order)
    shuffled = [replace(turn, items=tuple(turn.items[n] for n in order)) for turn in group]
    shares = satisfied_shares(group, baseline=baseline)
    assert satisfied_shares(shuffled, baseline=baseline) == [shares[n] for n in order]
    before = step_advantages(group, baseline=baseline, divide_by_std=divide)
    after = step_advantages(shuffled, baseline=baseline, divide_by_std=divide)
    assert len(before) == len(after)
    for was, now in zip(before, after, strict=True):
        assert now == (None if was is None else close(was, abs=1e-9))


@cheap
@given(turns, st.data())
def test_satisfying_more_never_pays_less(turn: TurnStates, data: st.DataObject) -> None:
    """An item that never held comes to hold at some step, or more votes say that one does."""
    n = data.draw(st.integers(0, len(turn.items) - 1))
    item = turn.items[n]
    if item.first_satisfied is None:
        better = replace(item, first_satisfied=data.draw(st.integers(0, turn.step_count - 1)))
    else:
        better = replace(item, share=data.draw(st.floats(item.share, 1.0)))
    more = (*turn.items[:n], better, *turn.items[n + 1 :])
    before, after = turn_reward(turn.items), turn_reward(more)
    assert before is not None and after is not None and after >= before - 1e-12


@cheap
@given(checklists())
def test_a_turn_that_satisfies_all_in_order_pays_one(items: tuple[ItemState, ...]) -> None:
    """Dependencies point backwards, so the nth item at step n comes after all that it depends on."""
    played = [replace(item, first_satisfied=n) for n, item in enumerate(items)]
    assert turn_reward(played) == close(1.0)


@cheap
@given(checklists(), st.data())
def test_weights_add_to_one_whatever_item_is_retired(items: tuple[ItemState, ...], data: st.DataObject) -> None:
    checklist = [
        Item(id=i.key, focus_on=FocusOn.REPLY, question="?", weight=i.weight, depends_on=i.depends_on) for i in items
    ]
    while len(checklist) > 1:
        checklist = list(without_item(checklist, data.draw(st.sampled_from([item.id for item in checklist]))))
        assert math.fsum(item.weight for item in checklist) == close(1.0)
        check_checklist(checklist)


@cheap
@given(checklists(), st.data())
def test_one_unscored_item_leaves_no_value(items: tuple[ItemState, ...], data: st.DataObject) -> None:
    keys = [item.key for item in items]
    lost = data.draw(st.sampled_from(keys))
    checklist = tuple(Item(id=i.key, focus_on=FocusOn.REPLY, question="?", weight=i.weight) for i in items)
    said = {key: Outcome.UNSCORED if key == lost else Outcome.PASS for key in keys}
    verdicts = [Verdict("t", 0, 1, key, said[key], None, VerdictSource.LLM, "judge", None, "", "") for key in keys]
    reward = reward_of("t", [[checklist]], verdicts, [2])
    assert (reward.value, reward.turn_values, reward.unscored) == (None, (None,), 1)


@cheap
@given(REWARDS, st.booleans())
def test_trajectory_advantages_add_to_zero_and_stay_in_bounds(rewards: list[float | None], divide: bool) -> None:
    advantages = trajectory_advantages(rewards, divide_by_std=divide)
    assert [a is None for a in advantages] == [r is None for r in rewards]
    scored = [a for a in advantages if a is not None]
    assert math.fsum(scored) == close(0.0, abs=1e-6)
    # (x − mean) / std of n numbers is at most sqrt(n − 1) in size; undivided it is at most the rewards' range.
    assert all(abs(a) <= (math.sqrt(len(scored)) + 1e-9 if divide else 1.0) for a in scored)


@cheap
@given(TURN_REWARDS, st.booleans())
def test_turn_advantages_of_those_that_reached_it_add_to_zero(rewards: list[list[float] | None], divide: bool) -> None:
    advantages = [row for row in turn_advantages(rewards, divide_by_std=divide) if row is not None]
    for turn in range(max((len(row) for row in advantages), default=0)):
        assert math.fsum(row[turn] or 0.0 for row in advantages if turn < len(row)) == close(0.0, abs=1e-6)


@cheap
@given(TURN_REWARDS)
def test_turn_advantages_over_all_add_to_zero_with_those_that_stopped(rewards: list[list[float] | None]) -> None:
    """A rollout that stopped has no token there, but it would have 0 − mean."""
    members = [row for row in rewards if row is not None]
    advantages = [row for row in turn_advantages(rewards, baseline=TurnBaseline.ALL) if row is not None]
    for turn in range(max((len(row) for row in members), default=0)):
        mean = math.fsum(row[turn] for row in members if turn < len(row)) / len(members)
        missed = sum(turn >= len(row) for row in members)
        total = math.fsum(row[turn] or 0.0 for row in advantages if turn < len(row))
        assert total - missed * mean == close(0.0, abs=1e-9)


@cheap
@given(checklists().flatmap(lambda items: st.lists(rollouts(items, unscored=False), min_size=1, max_size=5)))
def test_first_steps_add_to_zero_where_all_items_are_open_to_all(group: list[TurnStates]) -> None:
    """Without dependencies every item is eligible at every rollout's first step, and there r̃ is its outcome."""
    free = [TurnStates(tuple(replace(i, depends_on=()) for i in turn.items), turn.step_count) for turn in group]
    firsts = [steps[0] for steps in step_advantages(free) if steps is not None]
    assert math.fsum(firsts) == close(0.0, abs=1e-9)


@cheap
@given(groups, baselines, st.booleans())
def test_step_advantages_are_bounded_and_shares_are_shares(
    group: list[TurnStates], baseline: TurnBaseline, divide: bool
) -> None:
    assert all(share is None or 0 <= share <= 1 for share in satisfied_shares(group, baseline=baseline))
    most = math.sqrt(len(group)) + 1e-9 if divide else 1.0
    for turn, steps in zip(group, step_advantages(group, baseline=baseline, divide_by_std=divide), strict=True):
        assert steps is not None and len(steps) == turn.step_count
        assert all(abs(advantage) <= most for advantage in steps)


@cheap
@given(REWARDS, TURN_REWARDS, groups, baselines, st.booleans(), st.integers(0, 99))
def test_the_order_of_the_rollouts_does_not_matter(
    rewards: list[float | None],
    turn_rewards: list[list[float] | None],
    group: list[TurnStates],
    baseline: TurnBaseline,
    divide: bool,
    seed: int,
) -> None:
    def order(length: int) -> list[int]:
        return randomness.Random(seed).sample(range(length), length)

    advantages = trajectory_advantages(rewards, divide_by_std=divide)
    places = order(len(rewards))
    assert trajectory_advantages([rewards[i] for i in places], divide_by_std=divide) == [advantages[i] for i in places]
    by_turn = turn_advantages(turn_rewards, baseline=baseline, divide_by_std=divide)
    places = order(len(turn_rewards))
    shuffled = turn_advantages([turn_rewards[i] for i in places], baseline=baseline, divide_by_std=divide)
    assert shuffled == [by_turn[i] for i in places]
    by_step = step_advantages(group, baseline=baseline, divide_by_std=divide)
    places = order(len(group))
    moved = step_advantages([group[i] for i in places], baseline=baseline, divide_by_std=divide)
    assert moved == [by_step[i] for i in places]


@cheap
@given(REWARDS, TURN_REWARDS, groups, baselines, st.booleans())
def test_an_excluded_member_changes_nothing_for_the_others(
    rewards: list[float | None],
    turn_rewards: list[list[float] | None],
    group: list[TurnStates],
    baseline: TurnBaseline,
    divide: bool,
) -> None:
    """A zero in its place would (fault 3 of the reference code)."""
    over: dict[str, Any] = {"baseline": baseline, "divide_by_std": divide}
    alone = trajectory_advantages(rewards, divide_by_std=divide)
    assert trajectory_advantages([None, *rewards, None], divide_by_std=divide) == [None, *alone, None]
    by_turn = turn_advantages(turn_rewards, **over)
    assert turn_advantages([None, *turn_rewards], **over) == [None, *by_turn]
    by_step = step_advantages(group, **over)
    assert step_advantages([*group, None], **over) == [*by_step, None]
    whole: list[list[list[TurnStates]] | None] = [[[turn]] for turn in group]
    assert dialogue_step_advantages([None, *whole], **over) == [None, *dialogue_step_advantages(whole, **over)]
