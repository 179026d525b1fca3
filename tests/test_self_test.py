"""Damaged references must fail the items concerned; items that do not notice are named."""

import asyncio
from collections.abc import Sequence

import pytest

from env_sim.recordings import played_reference
from env_sim.scenario_generator import generate_scenarios
from reward.arguments import equal_values
from reward.checks import decide_check
from reward.damages import Damage, damages, other_value
from reward.llm_judge import Dialogue
from reward.self_test import MOST_ASKED, figures_of, run_self_test, run_self_test_with
from store.records import (
    Called,
    CallOrder,
    Item,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ReplyRepeats,
    ResponseReceived,
    TurnRecord,
)
from store.vocabulary import FocusOn, Outcome, Split
from tests.annotation_examples import CALL, FIRST_TURN, OFFER, REPLY, RESPONSE, SECOND_TURN, TURNS, item
from tests.turn_records import call, turn

REFERENCE = played_reference(TURNS[0], 0)
CLOSING = played_reference(TURNS[1], 1)


def kinds(of: Item, reference: TurnRecord = REFERENCE) -> list[Damage]:
    return [damaged.kind for damaged in damages(of, reference)]


def test_every_bundled_item_passes_its_reference_and_fails_every_damage() -> None:
    """200 scenarios of each split: each item is tried, and none is blind."""
    tests = []
    for split in Split:
        for scenario in generate_scenarios(split, 200, 3):
            for index, spoken in enumerate(scenario.turns):
                tests += run_self_test(spoken.checklist, played_reference(spoken, index))
    figures = figures_of(tests)
    assert figures["items"] == figures["reference_passes"] == figures["tested"] > 2500
    assert figures["not_discriminating_share"] == 0, figures["blind"]
    everything = {kind.value for kind in Damage} - {"no_thinking", "forbidden_words", "repeated_call"}
    assert figures["by_damage"].keys() == everything


def test_each_kind_of_item_is_damaged_where_it_looks() -> None:
    assert kinds(CALL) == [
        Damage.DROPPED_CALL, Damage.FAILED_CALL, Damage.WRONG_ARGUMENT, Damage.WRONG_ARGUMENT,
    ]  # fmt: skip
    assert kinds(RESPONSE) == [Damage.DROPPED_CALL, Damage.FAILED_CALL, Damage.WRONG_RESPONSE]
    assert kinds(REPLY) == [Damage.EMPTY_REPLY, Damage.GENERIC_REPLY, Damage.WRONG_VALUE]
    once = Called(tool="find_flights", arguments={"origin": "Oslo"}, at_most=1)
    assert kinds(CALL.model_copy(update={"check": once}))[-1] is Damage.REPEATED_CALL
    twice = Called(tool="find_flights", succeeded=False, at_least=2, at_most=2)
    assert kinds(CALL.model_copy(update={"check": twice})) == [
        Damage.DROPPED_CALL, Damage.DROPPED_CALL, *[Damage.WRONG_ARGUMENT] * 2, Damage.REPEATED_CALL,
    ]  # fmt: skip
    asks = OFFER.model_copy(update={"check": ReplyAsks(about=("book",))})
    assert kinds(asks, CLOSING) == [Damage.EMPTY_REPLY, Damage.GENERIC_REPLY, Damage.NO_QUESTION]
    forbids = OFFER.model_copy(update={"check": ReplyMentions(none_of=("refund",))})
    assert kinds(forbids, CLOSING) == [Damage.EMPTY_REPLY, Damage.FORBIDDEN_WORDS]
    nothing = item("nothing", FocusOn.TOOL_CALLS, 0, "", check=NotCalled(tools=("book_flight", "pay")))
    assert kinds(nothing, CLOSING) == [Damage.FORBIDDEN_CALL, Damage.FORBIDDEN_CALL]
    thinks = item("thinks", FocusOn.THINKING, 0, "misspelt")
    assert kinds(thinks) == [Damage.NO_THINKING]


def test_damages_fail_sound_checks_and_change_only_what_they_say() -> None:
    for one in FIRST_TURN:
        for damaged in damages(one, REFERENCE):
            assert one.check is not None and not decide_check(one.check, damaged.turn).satisfied
            assert damaged.turn.user == REFERENCE.user
            assert [step.index for step in damaged.turn.steps] == list(range(len(damaged.turn.steps)))
    (wrong,) = [damaged.turn for damaged in damages(REPLY, REFERENCE) if damaged.kind is Damage.WRONG_VALUE]
    assert "F84" in wrong.reply and "1,200" not in wrong.reply
    assert wrong.steps[:-1] == REFERENCE.steps[:-1]


@pytest.mark.parametrize("bounds", [{"at_least": 2}, {"at_least": 2, "at_most": 2}])
def test_a_check_that_counts_notices_a_call_less_and_one_more(bounds: dict[str, int]) -> None:
    played = turn([call("pay", {"to": "Ann"})], [call("pay", {"to": "Ann"})], "Paid twice.")
    counts = item("counts", FocusOn.TOOL_CALLS, 0, "pay", check=Called(tool="pay", arguments={"to": "Ann"}, **bounds))
    (tested,) = run_self_test([counts], played)
    assert tested.discriminates
    dropped = [damaged.turn for damaged in damages(counts, played) if damaged.kind is Damage.DROPPED_CALL]
    assert [sum(len(step.calls) for step in left.steps) for left in dropped] == [0, 1]


def test_a_reply_that_repeats_is_damaged_on_both_sides() -> None:
    """What the reply says is another value, or what the tool answered is, or nothing was answered."""
    repeats = ReplyRepeats(tool="find_flights", fields=("price", "flight"))
    told = item("told", FocusOn.REPLY, 2, "1,200", check=repeats)
    assert kinds(told) == [
        Damage.EMPTY_REPLY, Damage.GENERIC_REPLY, Damage.DROPPED_CALL, Damage.FAILED_CALL,
        Damage.WRONG_VALUE, Damage.WRONG_RESPONSE, Damage.WRONG_VALUE, Damage.WRONG_RESPONSE,
    ]  # fmt: skip
    (tested,) = run_self_test([told], REFERENCE)
    assert tested.on_reference is Outcome.PASS and tested.discriminates


def test_the_order_of_calls_is_turned_round() -> None:
    played = turn([call("look")], [call("pay")], "Paid.")
    order = item("order", FocusOn.TOOL_CALLS, 1, "pay", check=CallOrder(first="look", then="pay"))
    reordered = next(d.turn for d in damages(order, played) if d.kind is Damage.REORDERED)
    assert [made.name for step in reordered.steps for made in step.calls] == ["pay", "look"]
    (tested,) = run_self_test([order], played)
    assert tested.discriminates


def test_a_lax_check_is_blind_and_named() -> None:
    """The item asks for seats 2 too, its check does not."""
    lax = CALL.model_copy(update={"check": Called(tool="find_flights", arguments={"origin": "Oslo"})})
    tests = run_self_test([lax, RESPONSE], REFERENCE)
    assert [test.discriminates for test in tests] == [False, True]
    figures = figures_of(tests)
    assert figures["blind"] == ["turn 0, right_call: wrong_argument"]
    assert figures["not_discriminating_share"] == 0.5
    assert figures["by_damage"]["wrong_argument"] == [1, 2]


def test_items_without_a_check_are_tried_by_a_judge_that_is_handed_in() -> None:
    """The judge finds the offer wherever the reply says "book", so it is blind to nothing; the other one says PASS."""
    gullible = OFFER.model_copy(update={"id": "gullible"})
    asked: list[tuple[str, list[str]]] = []

    async def judge(dialogue: Dialogue, items: Sequence[Item]) -> list[Outcome]:
        assert ([one.user for one in dialogue.earlier], dialogue.scenario_hash) == ([TURNS[0].user], "abc")
        reply = dialogue.turn.reply
        asked.append((reply, [one.id for one in items]))
        good = Outcome.PASS if "book" in reply else Outcome.FAIL
        return [Outcome.PASS if one.id == "gullible" else good for one in items]

    assert [test.on_reference for test in run_self_test(SECOND_TURN, CLOSING)] == [None]
    tests = asyncio.run(run_self_test_with([OFFER, gullible], Dialogue(CLOSING, (REFERENCE,), "abc"), judge))
    assert [test.discriminates for test in tests] == [True, False]
    assert sorted(asked) == [(reply, ["offers_booking", "gullible"]) for reply in ("", "Okay.", "Shall I book F84?")]


@pytest.mark.parametrize(
    ("question", "repeated"),
    [
        ("Did the assistant call find_flights exactly once?", True),
        ("Was find_flights called no more than two times?", True),
        ("Did it pay without repeating the call?", True),
        ("Was F84 booked by a single successful call?", True),
        ("Did the assistant call find_flights for exactly 2 seats?", False),
        ("Did it search once the user had named Oslo?", False),
        ("Did the assistant call find_flights with origin Oslo?", False),
    ],
)
def test_an_item_that_counts_is_tried_on_a_call_too_many(question: str, repeated: bool) -> None:
    """A judge is asked about three damages of an item: this one is among them."""
    counts = CALL.model_copy(update={"check": None, "question": question, "pass_condition": "That holds."})
    assert (Damage.REPEATED_CALL in kinds(counts)[:MOST_ASKED]) == repeated
    for damaged in damages(counts, REFERENCE):
        if damaged.kind is Damage.REPEATED_CALL:
            calls = [made.name for step in damaged.turn.steps for made in step.calls]
            assert calls == ["find_flights"] * 3 and damaged.turn.reply == REFERENCE.reply


def test_a_judge_that_cannot_say_tests_nothing() -> None:
    async def silent(dialogue: Dialogue, items: Sequence[Item]) -> list[Outcome]:
        return [Outcome.UNSCORED for _ in items]

    (test,) = asyncio.run(run_self_test_with([OFFER], Dialogue(CLOSING), silent))
    assert test.discriminates is None and figures_of([test])["tested"] == 0


@pytest.mark.parametrize("value", [3, 0, -2.5, True, "Oslo", "F84", "2026-05-12", [1, 2], [], {"a": 1}, {}, None, ""])
def test_another_value_is_another_one(value: object) -> None:
    assert not equal_values(value, other_value(value, 0.5), 0.5)


def test_a_response_in_several_places_is_changed_in_all() -> None:
    played = turn([call("find", {}, {"id": "A1"})], [call("find", {}, {"id": "A1", "n": 3})], "It is A1.")
    found = item("found", FocusOn.TOOL_RESPONSE, 0, "A1", check=ResponseReceived(tool="find", values=("A1",)))
    assert all(not decide_check(found.check, d.turn).satisfied for d in damages(found, played) if found.check)


def test_a_check_that_nobody_can_decide_is_not_tried() -> None:
    odd = RESPONSE.model_copy(update={"check": ResponseReceived(tool="find_flights", values=("**",))})
    (tested,) = run_self_test([odd], REFERENCE)
    assert (tested.on_reference, tested.discriminates) == (Outcome.UNSCORED, None)
