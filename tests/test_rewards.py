"""Equations 2, 3, 4 and 6 on hand-worked cases, and rewards from verdicts."""

from dataclasses import replace

import pytest

from env_sim.scenario_generator import generate_scenarios
from reward.checks import decide_check
from reward.outcomes import item_states, reward_of, strict_items_hold
from reward.rewards import (
    ItemState,
    backfilled_rewards,
    eligible_items,
    is_paid,
    step_rewards,
    trajectory_reward,
    turn_reward,
)
from store.records import Item, Scenario, ScenarioTurn
from store.verdicts import Verdict
from store.vocabulary import FocusOn, Outcome, Split, VerdictSource
from tests.turn_records import reference_turn


def test_an_item_pays_once_at_the_step_at_which_it_first_holds() -> None:
    """a (0.75) first holds at step 1, b (0.25) never; three steps. r is 1 at (1, a) alone: R_t = 0.75."""
    items = [ItemState("a", 0.75, 1), ItemState("b", 0.25, None)]
    assert step_rewards(items, 3) == [[0, 0], [1, 0], [0, 0]]
    assert turn_reward(items) == 0.75


def test_a_dependency_that_held_before_the_step_lets_the_item_pay() -> None:
    """call at step 0, reply (depends on it) at step 1: the call holds in x_1, so both pay: 0.6 + 0.4 = 1."""
    items = [ItemState("call", 0.6, 0), ItemState("reply", 0.4, 1, ("call",))]
    assert step_rewards(items, 2) == [[1, 0], [0, 1]]
    assert turn_reward(items) == pytest.approx(1.0)


def test_a_dependency_that_never_holds_blocks_the_item() -> None:
    """The reply holds at step 1, its call never: R_t = 0, although 0.4 worth of items is satisfied."""
    items = [ItemState("call", 0.6, None), ItemState("reply", 0.4, 1, ("call",))]
    assert step_rewards(items, 2) == [[0, 0], [0, 0]]
    assert turn_reward(items) == 0.0


def test_a_dependency_of_the_same_step_does_not_hold_before_it() -> None:
    """Both become true at step 0. In x_0 neither holds, so only the one without dependencies pays: R_t = 0.6."""
    items = [ItemState("call", 0.6, 0), ItemState("response", 0.4, 0, ("call",))]
    assert step_rewards(items, 1) == [[1, 0]]
    assert turn_reward(items) == 0.6


def test_an_item_that_holds_before_its_dependency_never_pays() -> None:
    """The item holds at 0, its dependency at 1. At 0 the dependency is missing; from 1 on the item "does not hold" no
    more: R_t is the dependency's 0.3."""
    items = [ItemState("early", 0.7, 0, ("late",)), ItemState("late", 0.3, 1)]
    assert step_rewards(items, 3) == [[0, 0], [0, 1], [0, 0]]
    assert turn_reward(items) == 0.3


def test_dependencies_look_at_what_holds_not_at_what_paid() -> None:
    """a never holds; b (on a) holds at 0 without pay; c (on b) holds at 1: Sat(b) is true in x_1, so c pays its 0.2."""
    items = [ItemState("a", 0.5, None), ItemState("b", 0.3, 0, ("a",)), ItemState("c", 0.2, 1, ("b",))]
    assert turn_reward(items) == 0.2


def test_backfill_pays_every_eligible_step_up_to_the_one_at_which_the_item_becomes_true() -> None:
    """a holds at step 2 of 4: r̃ is 1 at 0, 1, 2. b (on a) holds at 3: eligible from 3 on. c never holds: always 0."""
    items = [ItemState("a", 0.5, 2), ItemState("b", 0.3, 3, ("a",)), ItemState("c", 0.2, None)]
    assert backfilled_rewards(items, 4) == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert eligible_items(items, 4) == [
        [True, False, True],
        [True, False, True],
        [True, False, True],
        [False, True, True],
    ]


def test_trajectory_reward_divides_by_the_turns_the_scenario_has() -> None:
    """Turns worth 1 and 0.5 of a scenario of three turns, the third never reached: (1 + 0.5 + 0) / 3 = 0.5."""
    assert trajectory_reward([1.0, 0.5], 3) == pytest.approx(0.5)
    assert trajectory_reward([], 2) == 0.0
    with pytest.raises(ValueError, match="3 turns were reached of a scenario that has 2"):
        trajectory_reward([1.0, 1.0, 1.0], 2)


def test_unscored_is_no_zero() -> None:
    items = [ItemState("a", 0.5, 0), ItemState("b", 0.5, None, scored=False)]
    assert turn_reward(items) is None
    assert trajectory_reward([1.0, None], 2) is None


def test_a_diamond_of_dependencies() -> None:
    """search at 0; price and seats (both on search) at 1; summary (on both) at 2: all pay, 0.4 + 0.2 + 0.2 + 0.2 = 1.
    With seats at 2 instead they do not hold before the summary's step: the summary does not pay, 0.8 is left."""

    def items(seats_at: int) -> list[ItemState]:
        return [
            ItemState("search", 0.4, 0),
            ItemState("price", 0.2, 1, ("search",)),
            ItemState("seats", 0.2, seats_at, ("search",)),
            ItemState("summary", 0.2, 2, ("price", "seats")),
        ]

    assert turn_reward(items(1)) == pytest.approx(1.0)
    assert turn_reward(items(2)) == pytest.approx(0.8)


def test_an_item_pays_the_share_of_averaged_votes_that_say_so() -> None:
    """a (0.6) at step 0 by 2 votes of 3, b (0.4) at step 1 by all: r = 2/3 and 1, R_t = 0.6 · 2/3 + 0.4 = 0.8.
    Backfilled, a is 2/3 at step 0 alone, b is 1 at steps 0 and 1."""
    items = [ItemState("a", 0.6, 0, share=2 / 3), ItemState("b", 0.4, 1)]
    assert step_rewards(items, 2) == [[2 / 3, 0], [0, 1]]
    assert backfilled_rewards(items, 2) == [[2 / 3, 1], [0, 1]]
    assert turn_reward(items) == pytest.approx(0.8)


def _scenario(*turns: tuple[Item, ...]) -> Scenario:
    spoken = tuple(ScenarioTurn(user="Hi", checklist=items) for items in turns)
    return Scenario(name="s", domain="d", source="test", split=Split.TRAIN, seed=1, system="", tools=(), turns=spoken)


def _checklists(scenario: Scenario) -> list[list[tuple[Item, ...]]]:
    return [[turn.checklist] for turn in scenario.turns]


def _item(key: str, weight: float, depends_on: tuple[str, ...] = (), strict: bool = False) -> Item:
    return Item(
        id=key,
        focus_on=FocusOn.REPLY,
        question="?",
        weight=weight,
        depends_on=depends_on,
        required_for_next_turn=strict,
    )


def _verdict(turn: int, key: str, outcome: Outcome, step: int | None = None, reason: str = "") -> Verdict:
    return Verdict("t1", turn, 1, key, outcome, step, VerdictSource.CODE, "checks", None, reason, "")


def test_reward_of_a_trajectory() -> None:
    """Turn 0: a (0.5) at 0, b (0.5, on a) at 1: 1. Turn 1: c (0.2) fails, d (0.8) passes: 0.8. Turn 2 not reached.
    R = (1 + 0.8 + 0) / 3 = 0.6."""
    scenario = _scenario(
        (_item("a", 0.5), _item("b", 0.5, ("a",))), (_item("c", 0.2), _item("d", 0.8)), (_item("e", 1.0),)
    )
    verdicts = [
        _verdict(0, "a", Outcome.PASS, 0),
        _verdict(0, "b", Outcome.PASS, 1),
        _verdict(1, "c", Outcome.FAIL),
        _verdict(1, "d", Outcome.PASS, 0),
    ]
    reward = reward_of("t1", _checklists(scenario), verdicts, [2, 1])
    assert reward.value == pytest.approx(0.6)
    assert reward.turn_values == pytest.approx((1.0, 0.8))
    assert (reward.fully_passed, reward.unscored, reward.excluded_reason) == (False, 0, None)


def test_fully_passed_means_that_every_item_of_every_turn_pays() -> None:
    scenario = _scenario((_item("a", 1.0), _item("free", 0.0)), (_item("b", 1.0),))
    verdicts = [
        _verdict(0, "a", Outcome.PASS, 0),
        _verdict(0, "free", Outcome.PASS, 0),
        _verdict(1, "b", Outcome.PASS, 0),
    ]
    assert reward_of("t1", _checklists(scenario), verdicts, [1, 1]).fully_passed is True
    assert reward_of("t1", _checklists(scenario), verdicts[:2], [1]).fully_passed is False
    weightless = [verdicts[0], _verdict(0, "free", Outcome.FAIL), verdicts[2]]
    assert reward_of("t1", _checklists(scenario), weightless, [1, 1]).value == 1.0
    assert reward_of("t1", _checklists(scenario), weightless, [1, 1]).fully_passed is False


def test_unscored_and_missing_verdicts_exclude_the_trajectory_and_say_why() -> None:
    scenario = _scenario((_item("a", 0.5), _item("b", 0.5)))
    verdicts = [_verdict(0, "a", Outcome.UNSCORED, reason="the judge failed: timeout")]
    reward = reward_of("t1", _checklists(scenario), verdicts, [1])
    assert (reward.value, reward.fully_passed, reward.unscored) == (None, None, 2)
    assert reward.excluded_reason == "turn 0, item 'a' is UNSCORED: the judge failed: timeout (and 1 more)"
    unjudged = reward_of("t1", _checklists(scenario), [_verdict(0, "a", Outcome.PASS, 0)], [1])
    assert unjudged.excluded_reason == "turn 0, item 'b' is UNSCORED: it has no verdict"


def test_unscored_items_of_turns_never_reached_do_not_exclude() -> None:
    scenario = _scenario((_item("a", 1.0),), (_item("b", 1.0),))
    assert reward_of("t1", _checklists(scenario), [_verdict(0, "a", Outcome.FAIL)], [1]).value == 0.0


def test_a_pass_by_a_person_needs_no_step() -> None:
    """A person flips the call to PASS without a step: it holds from step 0, so the reply at step 1 pays too."""
    items = (_item("reply", 0.5, ("call",)), _item("call", 0.5))
    scenario = _scenario(items)
    verdicts = [_verdict(0, "call", Outcome.PASS), _verdict(0, "reply", Outcome.PASS, 1)]
    assert reward_of("t1", _checklists(scenario), verdicts, [2]).value == 1.0
    both = {"call": _verdict(0, "call", Outcome.PASS, 0), "reply": _verdict(0, "reply", Outcome.PASS)}
    states = item_states(items, both, 2)
    assert [(state.key, state.first_satisfied) for state in states] == [("reply", 1), ("call", 0)]


def test_strict_items_gate_the_next_turn() -> None:
    checklist = (_item("call", 0.3), _item("response", 0.3, ("call",), strict=True), _item("reply", 0.4))

    def gate(call: Outcome, response: Outcome, reply: Outcome = Outcome.FAIL) -> bool | None:
        said = {"call": call, "response": response, "reply": reply}
        return strict_items_hold(checklist, {key: _verdict(0, key, outcome) for key, outcome in said.items()})

    assert gate(Outcome.PASS, Outcome.PASS) is True
    assert gate(Outcome.PASS, Outcome.FAIL) is False
    assert gate(Outcome.FAIL, Outcome.PASS) is False, "its dependency is part of it"
    assert gate(Outcome.PASS, Outcome.UNSCORED) is None
    assert gate(Outcome.FAIL, Outcome.UNSCORED) is False
    assert gate(Outcome.PASS, Outcome.PASS, Outcome.UNSCORED) is True, "an item that is not strict does not gate"


@pytest.mark.parametrize(
    ("first", "expected"), [(Outcome.PASS, True), (Outcome.FAIL, False), (Outcome.UNSCORED, None), (None, None)]
)
def test_a_strict_item_stands_on_all_that_it_depends_on_however_far(
    first: Outcome | None, expected: bool | None
) -> None:
    """Strict is the reply, which depends on the response, which depends on the call."""
    checklist = (_item("reply", 0.4, ("response",), strict=True), _item("response", 0.3, ("call",)), _item("call", 0.3))
    said = {key: _verdict(0, key, Outcome.PASS) for key in ("reply", "response")}
    if first is not None:
        said["call"] = _verdict(0, "call", first)
    assert strict_items_hold(checklist, said) is expected


def test_the_bundled_reference_dialogues_earn_everything() -> None:
    """Else no policy could: an item would be undecidable, or depend on one that becomes true in the same step."""
    for scenario in generate_scenarios(Split.TRAIN, 60, 7) + generate_scenarios(Split.TEST, 60, 7):
        for index, spoken in enumerate(scenario.turns):
            happened = reference_turn(spoken, index)
            states = []
            for item in spoken.checklist:
                assert item.check is not None
                result = decide_check(item.check, happened)
                assert result.satisfied, f"{scenario.name}, turn {index}, {item.id}: {result.reason}"
                states.append(ItemState(item.id, item.weight, result.step_index, item.depends_on))
            unpaid = [state.key for state in states if not is_paid(state, states)]
            assert not unpaid, f"{scenario.name}, turn {index}: {unpaid} cannot pay"


def test_votes_of_a_minority_pay_at_the_last_step_and_unlock_nothing() -> None:
    """call (0.3): 1 vote of 3, so FAIL, holds from step 2 of 3: 0.3 · 1/3 = 0.1. response (0.3, on call) at step 1:
    the majority says that its call failed: 0. reply (0.4): 2 of 3 at step 2: 0.4 · 2/3. R_t = 0.1 + 0.8/3 = 0.3667."""
    items = (_item("call", 0.3), _item("response", 0.3, ("call",)), _item("reply", 0.4))
    said = {
        "call": replace(_verdict(0, "call", Outcome.FAIL), share=1 / 3),
        "response": _verdict(0, "response", Outcome.PASS, 1),
        "reply": replace(_verdict(0, "reply", Outcome.PASS, 2), share=2 / 3),
    }
    states = item_states(items, said, 3)
    assert [(s.first_satisfied, s.share) for s in states] == [(2, 1 / 3), (1, 1.0), (2, 2 / 3)]
    assert turn_reward(states) == pytest.approx(0.1 + 0.8 / 3)


def test_a_dependency_that_most_votes_say_holds_lets_the_item_pay_its_own_share() -> None:
    """call (0.5) at 0 by 2 of 3; reply (0.5, on call) at 1 by 3 of 4: 0.5 · 2/3 + 0.5 · 3/4 = 0.7083."""
    items = (_item("call", 0.5), _item("reply", 0.5, ("call",)))
    verdicts = [
        replace(_verdict(0, "call", Outcome.PASS, 0), share=2 / 3),
        replace(_verdict(0, "reply", Outcome.PASS, 1), share=3 / 4),
    ]
    reward = reward_of("t1", [[items]], verdicts, [2])
    assert reward.value == pytest.approx(17 / 24)
    assert reward.fully_passed is False, "a quarter of the votes says that something is missing"


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_votes_that_all_agree_pay_exactly_what_one_verdict_would(outcome: Outcome) -> None:
    items = (_item("a", 0.1), _item("b", 0.2, ("a",)), _item("c", 0.7))
    plain = [
        _verdict(0, "a", Outcome.PASS, 0),
        _verdict(0, "b", outcome, 1 if outcome is Outcome.PASS else None),
        _verdict(0, "c", Outcome.PASS, 1),
    ]
    averaged = [replace(verdict, share=float(verdict.outcome is Outcome.PASS)) for verdict in plain]
    assert reward_of("t1", [[items]], averaged, [2]) == reward_of("t1", [[items]], plain, [2])


def test_several_checklists_of_a_turn_are_averaged() -> None:
    """Turn 0 has two: a alone (1 → 1) and b 0.5, c 0.5 with c failing (0.5): (1 + 0.5) / 2 = 0.75. Turn 1 has one:
    d (0.4) passes: 0.4. R = (0.75 + 0.4) / 2 = 0.575. A checklist of which no sound item is left is not one."""
    turn_0 = [(_item("a", 1.0),), (_item("b", 0.5), _item("c", 0.5)), ()]
    turn_1 = [(_item("d", 0.4), _item("e", 0.6))]
    verdicts = [
        _verdict(0, "a", Outcome.PASS, 0),
        _verdict(0, "b", Outcome.PASS, 0),
        _verdict(0, "c", Outcome.FAIL),
        _verdict(1, "d", Outcome.PASS, 0),
        _verdict(1, "e", Outcome.FAIL),
    ]
    reward = reward_of("t1", [turn_0, turn_1], verdicts, [1, 1])
    assert reward.turn_values == pytest.approx((0.75, 0.4))
    assert reward.value == pytest.approx(0.575)


def test_an_unscored_item_of_one_of_several_checklists_is_no_zero() -> None:
    turn_0 = [(_item("a", 1.0),), (_item("b", 1.0),)]
    verdicts = [_verdict(0, "a", Outcome.PASS, 0), _verdict(0, "b", Outcome.UNSCORED, reason="down")]
    reward = reward_of("t1", [turn_0], verdicts, [1])
    assert (reward.value, reward.turn_values) == (None, (None,))
    assert reward_of("t1", [[()]], [], [1]).value is None, "a turn without a checklist has no value either"
