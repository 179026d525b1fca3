"""Values without end: what a policy or a tool nests, or writes in digits, so deeply that Python refuses to walk it."""

import asyncio
from typing import Any

import pytest

from reward.arguments import equal_values
from reward.checks import TOO_DEEP, decide_check, quote_call
from reward.damages import OTHER_WORD, leaves, other_value
from reward.evidence import evidence_texts
from reward.judge import Judge
from reward.response_fields import field_values, with_field
from store.database import Log
from store.records import Called, Check, Item, ReplyRepeats, ResponseReceived, TurnRecord
from store.verdicts import rewards_of, verdicts_of
from store.vocabulary import FocusOn, Outcome
from tests.judged_log import all_pass, alone, item, polite_turn, record, scenario
from tests.turn_records import call, turn

UNREADABLE = "[" * 100_000
LOADED = '{"price": ' + "[" * 600 + "]" * 600 + "}"
"""Is read by the parser, and too deep for whatever walks through it."""


def nested(depth: int) -> Any:
    value: Any = "Paris"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [600, 5000])
def test_what_is_nested_without_end_equals_nothing(depth: int) -> None:
    assert not equal_values("Paris", nested(depth)) and not equal_values(nested(depth), nested(depth))
    assert equal_values(nested(50), nested(50))
    happened = turn([call("find", {"city": nested(depth)})], "It is 1200.")
    decided = decide_check(Called(tool="find", arguments={"city": "Paris"}), happened)
    assert not decided.satisfied and "no call to find with city" in decided.reason


def test_a_number_beyond_what_can_be_subtracted_equals_itself_alone() -> None:
    assert not equal_values(1, "9" * 1_100_000)


def test_a_call_that_cannot_be_written_out_says_so() -> None:
    deep = call("find", {"city": nested(5000)})
    assert quote_call(deep) == f'{{"arguments":"{TOO_DEEP}","name":"find"}}'
    happened = turn([deep], "It is 1200.")
    assert evidence_texts(happened, happened.steps[0], FocusOn.TOOL_CALLS) == [quote_call(deep)]


DIGITS = '["\\n", ' + "1" * 5000 + "]"


@pytest.mark.parametrize("response", [UNREADABLE, LOADED, '"\\n' + UNREADABLE, '["\\n", ' + UNREADABLE, DIGITS])
@pytest.mark.parametrize(
    "check", [ReplyRepeats(tool="find", fields=("price",)), ResponseReceived(tool="find", values=("1200",))]
)
def test_a_response_without_end_holds_no_value(response: str, check: Check) -> None:
    decided = decide_check(check, turn([call("find", {}, response)], "It is 1200."))
    assert not decided.satisfied and len(decided.quote) <= 300


def test_what_is_read_of_such_a_response_is_its_text() -> None:
    assert field_values(UNREADABLE, "price") == field_values(LOADED, "price") == []
    assert with_field(UNREADABLE, "price", 7) is None
    assert leaves("[" * 100_000 + " 1200 ") == ["1200"] and leaves(LOADED) == []
    assert other_value(nested(5000)) == OTHER_WORD


HOSTILE: dict[str, tuple[Check, TurnRecord]] = {
    "arguments": (
        Called(tool="find", arguments={"city": "Paris"}),
        turn([call("find", {"city": nested(600)})], "It is 1200.", trajectory_id="hostile", user="Question 0"),
    ),
    "response": (
        ReplyRepeats(tool="find", fields=("price",)),
        turn([call("find", {"city": "Paris"}, UNREADABLE)], "No.", trajectory_id="hostile", user="Question 0"),
    ),
    "escapes": (
        ResponseReceived(tool="find", values=("ok",)),
        turn([call("find", {}, '["\\n", ' + UNREADABLE)], "No.", trajectory_id="hostile", user="Question 0"),
    ),
}


@pytest.mark.parametrize("place", HOSTILE)
def test_one_such_turn_does_not_keep_the_rest_of_the_log_from_being_judged(sqlite_log: Log, place: str) -> None:
    check, hostile = HOSTILE[place]
    items: tuple[Item, ...] = (item("checked", FocusOn.TOOL_CALLS, 0.5, check), item("polite", FocusOn.REPLY, 0.5))
    names = [record(sqlite_log, scenario(items), [each]) for each in (polite_turn("t0"), hostile, polite_turn("t1"))]
    report = asyncio.run(Judge(sqlite_log, alone(all_pass)).judge_log(names))
    assert report.trajectories == 3 and set(rewards_of(sqlite_log, names)) == set(names)
    said = verdicts_of(sqlite_log, names)
    outcomes = {name: [verdict.outcome for verdict in said[name]] for name in names}
    assert outcomes["hostile"][0] is Outcome.FAIL, "the policy's or its tool's doing, not the judge's trouble"
    assert outcomes["t0"] == outcomes["t1"] and Outcome.UNSCORED not in outcomes["t0"]
