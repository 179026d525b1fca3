"""Code checks: what a reader of the turn would say holds, and nothing that only looks like it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reward.arguments import equal_values
from reward.checks import decide_check
from reward.mentions import _text_tokens, find_mention, questions
from reward.response_fields import field_values, with_field
from store.records import (
    Called,
    CallOrder,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ReplyRepeats,
    ResponseReceived,
    StepRecord,
)
from tests.turn_records import call, malformed, turn, unanswered


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (3, "3"),
        (3, 3.0),
        ("3.0", 3),
        (1200, "1,200.00"),
        ("-4.50", -4.5),
        (True, "TRUE"),
        ("New York", "  new   YORK "),
        ("São Paulo", "sa\u0303o paulo"),
        (["Ann", 2], ["ann", "2"]),
        ({"unit": "C", "value": 20}, {"value": "20.0", "unit": "c"}),
        (10**20 + 1, str(10**20 + 1)),
    ],
)
def test_equal_argument_values(expected: Any, actual: Any) -> None:
    assert equal_values(expected, actual)
    assert equal_values(actual, expected)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (3, "3rd"),
        (1, True),
        (0, False),
        ("0042", 42),
        ("0042", "42"),
        (1200, "1,20"),
        ("1,2", 12),
        (10**20 + 1, 10**20),
        (["a", "b"], ["b", "a"]),
        (["a"], ["a", "a"]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ("New York", "NewYork"),
        (3, None),
        (float("nan"), 3),
        ("1e3", 1000),
    ],
)
def test_different_argument_values(expected: Any, actual: Any) -> None:
    assert not equal_values(expected, actual)
    assert not equal_values(actual, expected)


def test_tolerance_is_absolute_and_reaches_nested_numbers() -> None:
    assert equal_values({"at": [59.33, 18.07]}, {"at": ["59.34", 18.06]}, tolerance=0.01)
    assert not equal_values({"at": [59.33]}, {"at": [59.345]}, tolerance=0.01)


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_every_spelling_of_a_whole_number_is_the_same_number(number: int) -> None:
    for spelling in (str(number), f"{number:,}", f"{number}.0", f" {number:,}.00 "):
        assert equal_values(number, spelling)
        assert find_mention(f"The total is {number:,}.00.", spelling) is not None


@pytest.mark.parametrize(
    ("text", "phrase", "quote"),
    [
        ("It costs **$1,200.00**.", "1200", "1,200.00"),
        ("It costs $12.50 in all", "12.5", "12.50"),
        ("leaves at 9:05", "09:05", "9:05"),
        ("on 2026-3-5", "2026-03-05", "2026-3-5"),
        ("at 5pm", "5 pm", "5pm"),
        ("12kg of rice", "12", "12"),
        ("22°C outside", "22", "22"),
        ("it is −5 °C", "-5", "−5"),
        ("Status: In_Transit", "in transit", "In_Transit"),
        ("your order **A-12** is on its way", "order a-12", "order **A-12"),
        ("I can’t do that", "can't", "can’t"),
        ("bound for NEW\nYORK today", "new york", "NEW\nYORK"),
    ],
)
def test_mentions(text: str, phrase: str, quote: str) -> None:
    assert find_mention(text, phrase) == quote


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("room A12", "12"),
        ("12.5 km", "12"),
        ("12.5 km", "5"),
        ("1,200 euro", "200"),
        ("120 euro", "12"),
        ("order 0042", "42"),
        ("pages 3-5", "-5"),
        ("it is -5 °C", "5"),
        ("yorkshire", "york"),
        ("york, new", "new york"),
        ("order 4521x7", "4521"),
    ],
)
def test_does_not_mention(text: str, phrase: str) -> None:
    assert find_mention(text, phrase) is None


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=8))
def test_a_mention_is_quoted_literally(text: str, phrase: str) -> None:
    try:
        quote = find_mention(text, phrase)
    except ValueError:
        return
    if quote is not None and text.isascii():
        assert quote in text


def test_a_phrase_without_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\*\*'"):
        decide_check(ReplyMentions(none_of=("**",)), turn("Fine."))


def test_questions_are_sentences_with_a_question_mark() -> None:
    text = "I found ann@x.com. Which **date**? It costs 3.5 euro!\n- From which city\n- OK?"
    assert questions(text) == ["Which **date**?", "- OK?"]


def test_called_holds_from_the_first_successful_matching_call() -> None:
    happened = turn(
        [call("find", {"city": "Rome"})],
        [call("find", {"city": "paris "}, error=True)],
        [call("find", {"city": " PARIS", "page": 2}), call("find", {"city": "Paris"})],
        "Done.",
    )
    result = decide_check(Called(tool="find", arguments={"city": "Paris"}), happened)
    assert (result.satisfied, result.step_index) == (True, 2)
    assert result.quote == '{"arguments":{"city":" PARIS","page":2},"name":"find"}'
    attempted = decide_check(Called(tool="find", arguments={"city": "Paris"}, succeeded=False), happened)
    assert (attempted.satisfied, attempted.step_index) == (True, 1)


def test_called_needs_no_reply_but_its_response() -> None:
    assert decide_check(Called(tool="find"), turn([call("find")])).satisfied
    result = decide_check(Called(tool="find"), turn([unanswered("find", {})]))
    assert (result.satisfied, result.reason) == (False, "the call to find got no response")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([["other"]], "no call to find; called instead: other"),
        ([], "no call to find"),
        ([["find:Rome"]], 'no call to find with city = "Paris" (last one: "Rome")'),
        ([["find:"]], 'no call to find with city = "Paris" (last one: absent)'),
    ],
)
def test_called_says_what_is_missing(steps: list[list[str]], reason: str) -> None:
    calls = []
    for names in steps:
        name, _, city = names[0].partition(":")
        calls.append([call(name, {"city": city} if city else {})])
    result = decide_check(Called(tool="find", arguments={"city": "Paris"}), turn(*calls, "Sorry."))
    assert (result.satisfied, result.step_index, result.reason) == (False, None, reason)


def test_malformed_calls_never_satisfy() -> None:
    happened = turn([malformed("find")], "Done.")
    assert "no JSON" in decide_check(Called(tool="find", succeeded=False), happened).reason
    assert not decide_check(ResponseReceived(tool="find"), happened).satisfied
    assert not decide_check(NotCalled(tools=("find",)), happened).satisfied
    assert not decide_check(NotCalled(), happened).satisfied


def test_expected_null_is_met_by_an_absent_argument() -> None:
    check = Called(tool="find", arguments={"city": None})
    assert decide_check(check, turn([call("find", {"page": 1})])).satisfied
    assert not decide_check(check, turn([call("find", {"city": "Rome"})])).satisfied


PRICES = ReplyRepeats(tool="find", fields=("price", "items.0.name"))


def found(price: Any, name: str = "Sun Hotel", **more: Any) -> Any:
    return call("find", {}, {"price": price, "items": [{"name": name}], **more})


@pytest.mark.parametrize(
    ("price", "reply"),
    [(1200, "Sun Hotel, 1,200.00 euro."), ("F84", "F84 at the **Sun Hotel**"), (-2.5, "It is -2.50 at sun hotel.")],
)
def test_a_reply_repeats_what_was_answered_whatever_it_was(price: Any, reply: str) -> None:
    decided = decide_check(PRICES, turn([found(price)], reply))
    assert (decided.satisfied, decided.step_index) == (True, 1) and decided.quote in reply


def test_another_value_than_the_one_answered_is_made_up() -> None:
    """Right by a recording, wrong here: the last response counts, not one before or one that failed."""
    first, last = found(1200), found(1300)
    assert not decide_check(PRICES, turn([first], [last], "Sun Hotel, 1200.")).satisfied
    decided = decide_check(PRICES, turn([first], [last], [call("find", {}, "no", error=True)], "Sun Hotel, 1300."))
    assert decided.satisfied
    wrong = decide_check(PRICES, turn([last], "Sun Hotel, 1200."))
    assert wrong.reason == "the reply does not mention \"1300\", which find answered at 'price'"
    assert '"price": 1300' in wrong.quote


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        (turn("1200 at Sun Hotel"), "there is no response of find in the turn"),
        (turn([call("find", {}, "no", error=True)], "1200 at Sun Hotel"), "there is no response of find"),
        (turn([call("find", {}, {"items": []})], "1200 at Sun Hotel"), "has nothing to mention at 'price'"),
        (turn([found(None)], "1200 at Sun Hotel"), "has nothing to mention at 'price'"),
        (turn([call("find", {}, "sold out")], "sold out"), "has nothing to mention at 'price'"),
        (turn([found(1200)]), "ended without a reply"),
    ],
)
def test_without_an_answer_there_is_nothing_to_repeat(happened: Any, reason: str) -> None:
    decided = decide_check(PRICES, happened)
    assert not decided.satisfied and decided.step_index is None and reason in decided.reason


def test_only_short_texts_are_remembered_in_numbers() -> None:
    """Tokens of a text take 35 times its room."""
    for n in range(100):
        assert find_mention(f"{n} " + "price 1,200 " * 400, "1200") == "1,200"
    assert _text_tokens.cache_info().currsize <= 16
    before = _text_tokens.cache_info()
    assert find_mention("price 1,200 " * 10_000, "1200") == "1,200" and _text_tokens.cache_info() == before


def test_fields_lead_through_lists_and_keys_with_dots() -> None:
    response = json.dumps({"a.b": {"c": [1, {"d": "x"}]}, "all": [1, "two", None, {"n": 3}], "a": {"b": 7}})
    paths = ("a.b.c.1.d", "a.b.c.0", "all", "a.b", "all.9", "x", "all.-1")
    assert [field_values(response, path) for path in paths] == [
        ["x"], ["1"], ["1", "two", "3"], ["7"], [], [], [],
    ]  # fmt: skip
    assert json.loads(with_field(response, "a.b.c.1.d", "y") or "")["a.b"]["c"][1] == {"d": "y"}
    assert with_field(response, "nowhere", 1) is None and with_field("no JSON", "a", 1) is None


def test_at_least_holds_from_the_call_that_makes_them_enough() -> None:
    check = Called(tool="pay", arguments={"to": "Ann"}, at_least=2)
    pay, other = call("pay", {"to": "Ann"}), call("pay", {"to": "Bob"})
    enough = decide_check(check, turn([pay], [other], [pay], [pay], "Paid."))
    assert (enough.satisfied, enough.step_index) == (True, 2) and "2 times" in enough.reason
    assert decide_check(check, turn([pay, pay])).step_index == 0, "parallel calls count, and no reply is waited for"
    few = decide_check(check, turn([pay], [other], "Paid."))
    assert not few.satisfied and few.reason == "pay was called 1 times, at least 2 asked for"
    failed = call("pay", {"to": "Ann"}, "no", error=True)
    assert not decide_check(check, turn([pay], [failed], "Paid.")).satisfied
    assert decide_check(check.model_copy(update={"succeeded": False}), turn([pay], [failed], "Paid.")).satisfied


@pytest.mark.parametrize(("times", "holds"), [(0, False), (1, False), (2, True), (3, False)])
def test_exactly_so_many_calls(times: int, holds: bool) -> None:
    decided = decide_check(Called(tool="pay", at_least=2, at_most=2), turn(*[[call("pay")]] * times, "Paid."))
    assert decided.satisfied == holds and (decided.step_index == times if holds else decided.step_index is None)
    assert not decide_check(Called(tool="pay", at_least=2, at_most=2), turn([call("pay")], [call("pay")])).satisfied


@pytest.mark.parametrize("bounds", [{"at_least": 0}, {"at_least": 3, "at_most": 2}])
def test_bounds_that_nothing_meets_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="at_least"):
        Called(tool="pay", **bounds)  # type: ignore[arg-type]


def test_a_check_without_the_newer_bound_is_written_as_it_was() -> None:
    """Scenarios are addressed by the hash of what is written."""
    assert Called(tool="pay", at_most=1).model_dump(mode="json").keys() == {
        "kind", "tool", "arguments", "tolerance", "succeeded", "at_most",
    }  # fmt: skip
    bounded = Called(tool="pay", at_least=2)
    assert Called.model_validate(bounded.model_dump(mode="json")) == bounded


def test_at_most_counts_matching_calls_and_is_decided_at_the_end() -> None:
    check = Called(tool="pay", arguments={"to": "Ann"}, at_most=1)
    once = turn([call("pay", {"to": "Ann"}), call("pay", {"to": "Bob"})], [call("balance")], "Paid.")
    assert decide_check(check, once).step_index == 2
    retried = turn([call("pay", {"to": "Ann"}, error=True)], [call("pay", {"to": "Ann"})], "Paid.")
    assert decide_check(check, retried).satisfied, "a failed call moved no money"
    twice = turn([call("pay", {"to": "Ann"})], [call("pay", {"to": "ann", "note": "again"})], "Paid.")
    result = decide_check(check, twice)
    assert not result.satisfied and "again" in result.quote
    assert not decide_check(check, turn([call("pay", {"to": "Ann"})])).satisfied


def test_not_called_is_decided_on_a_complete_turn_only() -> None:
    check = NotCalled(tools=("delete", "pay"))
    good = turn([call("find")], "Nothing found.")
    assert decide_check(check, good).step_index == 1
    assert not decide_check(check, turn([call("find")])).satisfied, "the turn could still have gone wrong"
    assert not decide_check(check, turn("  ")).satisfied, "an empty reply is no reply"
    bad = decide_check(check, turn([call("delete", {"id": 7}, error=True)], "Oops."))
    assert not bad.satisfied and '"id":7' in bad.quote
    assert decide_check(NotCalled(), turn("Hello!")).satisfied
    assert not decide_check(NotCalled(), good).satisfied


def test_a_reply_cut_off_by_the_token_limit_is_no_reply() -> None:
    cut = turn("The price is 1200").model_copy(
        update={"steps": (StepRecord(index=0, content="The price is 1200", finish_reason="length"),)}
    )
    for check in (ReplyMentions(all_of=(("1200",),)), ReplyMentions(none_of=("secret",)), NotCalled()):
        assert not decide_check(check, cut).satisfied


def test_response_received_needs_all_values_in_one_successful_response() -> None:
    check = ResponseReceived(tool="find", values=("AZ 10", "1200"))
    split = turn([call("find", {}, {"flight": "AZ 10"}), call("find", {}, {"price": 1200})])
    assert decide_check(check, split).reason == "the response of find lacks 'AZ 10'"
    failed = turn([call("find", {}, {"error": "AZ 10 at 1200 is sold out"}, error=True)])
    assert decide_check(check, failed).reason == "find answered with an error"
    found = turn(
        [call("other", {}, {"flight": "AZ 10", "price": 1200})],
        [call("find", {}, {"note": "\nAZ 10\tis cheap", "price": 1200.0})],
    )
    result = decide_check(check, found)
    assert (result.satisfied, result.step_index) == (True, 1)
    assert result.quote == found.steps[1].calls[0].response


def test_a_long_response_is_quoted_around_the_value() -> None:
    response = {"rows": [f"row {n}" for n in range(200)], "answer": "AZ 10"}
    result = decide_check(ResponseReceived(tool="find", values=("AZ 10",)), turn([call("find", {}, response)]))
    assert "AZ 10" in result.quote and len(result.quote) <= 300


def test_reply_mentions_every_group_and_nothing_forbidden() -> None:
    check = ReplyMentions(all_of=(("AZ 10", "AZ10"), ("1200",)), none_of=("refund",))
    result = decide_check(check, turn([call("find")], "AZ10 costs 1,200 euro."))
    assert (result.satisfied, result.step_index, result.quote) == (True, 1, "AZ10")
    missing = decide_check(check, turn("AZ 10 costs 900."))
    assert missing.reason == "the reply does not mention '1200'"
    forbidden = decide_check(check, turn("AZ 10 costs 1200, no Refund."))
    assert not forbidden.satisfied and forbidden.quote == "Refund"
    thought = turn([call("find")], thinking="AZ 10 costs 1200")
    assert not decide_check(check, thought).satisfied, "what is only thought is not said"


def test_reply_asks_needs_the_word_inside_the_question() -> None:
    check = ReplyAsks(about=("date", "day"))
    assert decide_check(check, turn("Sure! On which day? Thanks.")).quote == "On which day?"
    assert not decide_check(check, turn("I need a date. Shall I go on?")).satisfied
    assert not decide_check(check, turn("Tell me the date.")).satisfied
    assert not decide_check(check, turn([call("ask", {"q": "Which date?"})])).satisfied


def test_call_order() -> None:
    check = CallOrder(first="find", then="book")
    find, book = call("find"), call("book")
    assert decide_check(check, turn([find], [book], [book])).step_index == 1
    assert not decide_check(check, turn([book], [find], [book], "Done.")).satisfied
    assert not decide_check(check, turn([find, book], "Done.")).satisfied, "parallel calls do not see each other"
    assert not decide_check(check, turn([call("find", error=True)], [book], "Done.")).satisfied
    assert decide_check(check, turn([call("book", error=True)], [find], [book], "Done.")).step_index == 2
    assert not decide_check(check, turn([find], "Done.")).satisfied, "doing nothing earns nothing"


def test_a_response_may_be_asked_for_whatever_it_says() -> None:
    result = decide_check(ResponseReceived(tool="find"), turn([call("find", {}, {"price": 3})], "Three."))
    assert (result.satisfied, result.step_index, result.quote) == (True, 0, '{"price": 3}')
