"""From verdicts to rewards: what first held when, what a trajectory earned, whether strict items hold. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence

from reward.rewards import ItemState, paid_share, trajectory_reward, turn_reward
from store.records import Item
from store.verdicts import Reward, Verdict
from store.vocabulary import Outcome


def item_states(items: Sequence[Item], verdicts: Mapping[str, Verdict], step_count: int) -> tuple[ItemState, ...]:
    """The items of a checklist in its order, from the winning verdict of each item key; without one: UNSCORED.

    A PASS without a step (a person's) holds from the first step that its dependencies allow; from the last one where
    the item says what must not happen. Where votes are averaged (`Verdict.share`) the item is worth their share. A
    minority that says PASS (outcome FAIL, share above 0) names no step: the item holds from the last one, so it pays
    its share, and what depends on it, which would have to come later, goes by the majority.
    """
    states: dict[str, ItemState] = {}
    for item in dependencies_first(items):
        verdict = verdicts.get(item.id)
        since = None
        share = 1.0 if verdict is None or verdict.share is None else verdict.share
        if verdict is not None and verdict.outcome is Outcome.PASS:
            since = verdict.step_index
            if since is None:
                held = [first for key in item.depends_on if (first := states[key].first_satisfied) is not None]
                since = step_count - 1 if item.forbids else min(max(held, default=-1) + 1, step_count - 1)
        elif verdict is not None and verdict.outcome is Outcome.FAIL and verdict.share:
            since = step_count - 1
        scored = verdict is not None and verdict.outcome is not Outcome.UNSCORED
        states[item.id] = ItemState(item.id, item.weight, since, item.depends_on, scored, share)
    return tuple(states[item.id] for item in items)


def dependencies_first(items: Sequence[Item]) -> list[Item]:
    """The items in an order in which each comes after what it depends on (records.ScenarioTurn refuses cycles)."""
    ordered: dict[str, Item] = {}
    while len(ordered) < len(items):
        for item in items:
            if item.id not in ordered and all(key in ordered for key in item.depends_on):
                ordered[item.id] = item
    return list(ordered.values())


def turn_states(
    checklists_T: Sequence[Sequence[Sequence[Item]]], verdicts: Iterable[Verdict], step_counts: Sequence[int]
) -> list[list[tuple[ItemState, ...]]]:
    """For each turn that was reached the item states of each of its V checklists; arguments as in `reward_of`."""
    by_turn = _by_turn(verdicts)
    return [
        [item_states(items, by_turn.get(turn, {}), count) for items in checklists_T[turn] if items]
        for turn, count in enumerate(step_counts)
    ]


def reward_of(
    trajectory_id: str,
    checklists_T: Sequence[Sequence[Sequence[Item]]],
    verdicts: Iterable[Verdict],
    step_counts: Sequence[int],
    excluded_reason: str | None = None,
) -> Reward:
    """Equations 2, 4 and 6 on the winning verdicts of one trajectory.

    `checklists_T[t]` are the checklists of turn t of the scenario, of which the turn reward is the mean (the paper has
    one). `step_counts[t]` is the number of steps of turn t, one entry for each turn that was reached; `turn_values` has
    the same length. Turns that were never reached count 0. Any UNSCORED item of a reached turn, and a reached turn
    without an item, leave `value` None and say so in `excluded_reason` (invariant 3); so does an `excluded_reason`
    given here (the trajectory itself failed). `fully_passed`: every item of every turn of the scenario pays in full.
    """
    verdicts = list(verdicts)
    states_T = turn_states(checklists_T, verdicts, step_counts)
    turn_values = tuple(mean_turn_reward(states) for states in states_T)
    open_items = [
        (turn, state.key)
        for turn, variants in enumerate(states_T)
        for states in variants
        for state in states
        if not state.scored
    ]
    if excluded_reason is None:
        excluded_reason = _why_excluded(states_T, open_items, _by_turn(verdicts))
    value = None if excluded_reason is not None else trajectory_reward(turn_values, len(checklists_T))
    paid_all = all(paid_share(state, states) == 1 for variants in states_T for states in variants for state in states)
    return Reward(
        trajectory_id=trajectory_id,
        value=value,
        turn_values=turn_values,
        fully_passed=None if value is None else len(states_T) == len(checklists_T) and paid_all,
        unscored=len(open_items),
        excluded_reason=excluded_reason,
    )


def mean_turn_reward(variants: Sequence[Sequence[ItemState]]) -> float | None:
    """Equation 6, averaged over the turn's checklists; None if there is none or any item is UNSCORED."""
    rewards = [turn_reward(states) for states in variants]
    known = [reward for reward in rewards if reward is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(rewards) else None


def _by_turn(verdicts: Iterable[Verdict]) -> dict[int, dict[str, Verdict]]:
    by_turn: dict[int, dict[str, Verdict]] = {}
    for verdict in verdicts:
        by_turn.setdefault(verdict.turn_index, {})[verdict.item_key] = verdict
    return by_turn


def _why_excluded(
    states_T: Sequence[Sequence[Sequence[ItemState]]],
    open_items: Sequence[tuple[int, str]],
    by_turn: Mapping[int, Mapping[str, Verdict]],
) -> str | None:
    if open_items:
        turn, key = open_items[0]
        known = by_turn.get(turn, {}).get(key)
        more = f" (and {len(open_items) - 1} more)" if len(open_items) > 1 else ""
        return f"turn {turn}, item {key!r} is UNSCORED: {known.reason if known else 'it has no verdict'}{more}"
    bare = next((turn for turn, variants in enumerate(states_T) if not variants), None)
    return None if bare is None else f"turn {bare} has no checklist: write one with `checkloop annotate`"


def strict_items_hold(items: Sequence[Item], verdicts: Mapping[str, Verdict]) -> bool | None:
    """Whether the next user turn may be issued: every strict item, and all that it depends on, holds.

    What these depend on in their turn is among it. False as soon as one does not hold; None where that cannot be said
    because one is UNSCORED.
    """
    depends_on = {item.id: item.depends_on for item in items}
    needed = [item.id for item in items if item.required_for_next_turn]
    for key in needed:  # grows as it is walked
        needed += [other for other in depends_on.get(key, ()) if other not in needed]
    outcomes = {verdicts[key].outcome if key in verdicts else Outcome.UNSCORED for key in needed}
    if Outcome.FAIL in outcomes:
        return False
    return None if Outcome.UNSCORED in outcomes else True
