"""What went wrong, on turns worked out by hand: a weather tool and a flight tool, one failed item each."""

from pathlib import Path
from typing import Any

import pytest

from reward.failure_patterns import FailurePattern, find_patterns, name_failure
from store.database import Log
from store.failures import FailedItem
from store.figures import sum_counts, verdict_cube
from store.records import CallRecord, StepRecord, TurnRecord
from store.vocabulary import FocusOn
from tests.sample_log import build_sample_log

P = FailurePattern
OSLO = ("weather", {"city": "Oslo"}, '{"sky": "rain", "degrees": 7}')
ROME = ("weather", {"city": "Rome"}, '{"sky": "sun"}')
FLIGHT = ("book_flight", {"id": "F27"}, '{"booking": "B9"}')
REFUSED = ("weather", {"city": "Oslo"}, None)


def a_turn(*calls: tuple[str, dict[str, Any], str | None], reply: str | None, user: str = "And Oslo?") -> TurnRecord:
    """A step a call, then the reply if there is one. A call answered None failed."""
    steps = [
        StepRecord(
            index=n,
            calls=(CallRecord(call_id=f"c{n}", name=name, arguments=given, response=said or "500", is_error=not said),),
            finish_reason="tool_calls",
        )
        for n, (name, given, said) in enumerate(calls)
    ]
    if reply is not None:
        steps.append(StepRecord(index=len(steps), content=reply, finish_reason="stop"))
    return TurnRecord(trajectory_id="t1", index=0, user=user, steps=tuple(steps))


def an_item(kind: str, reason: str = "", channel: FocusOn = FocusOn.TOOL_CALLS) -> FailedItem:
    return FailedItem("t1", 0, kind, channel, "weather", "Is it so?", reason)


@pytest.mark.parametrize(
    ("kind", "reason", "turn", "pattern"),
    [
        ("called", "no call to weather", a_turn(reply="It rains."), P.MISSING_CALL),
        ("called", "no call to weather", a_turn(FLIGHT, reply="Booked."), P.WRONG_TOOL),
        ("called", "no call to weather with city = Oslo", a_turn(ROME, reply="Sun."), P.WRONG_ARGUMENT),
        ("called", "no call to weather with city = Bergen", a_turn(REFUSED, reply="Sorry."), P.WRONG_ARGUMENT),
        ("called", "the call to weather failed", a_turn(REFUSED, reply="Sorry."), P.FAILED_CALL),
        ("called", "weather was called 2 times, at most 1 allowed", a_turn(OSLO, OSLO, reply="7"), P.NEEDLESS_CALL),
        ("called", "weather was called 1 times, at least 2 asked for", a_turn(OSLO, reply="7"), P.MISSING_CALL),
        ("called", "no call to weather with city = Rome", a_turn(OSLO, OSLO, OSLO, reply=None), P.LOOP),
        ("response_received", "weather answered with an error", a_turn(REFUSED, reply="Sorry."), P.FAILED_CALL),
        ("response_received", "the response lacks 'snow'", a_turn(OSLO, reply="Rain."), P.WRONG_ARGUMENT),
        ("not_called", "weather was called", a_turn(OSLO, reply="Rain."), P.NEEDLESS_CALL),
        ("not_called", "the turn ended without a reply", a_turn(reply=None), P.GAVE_UP),
        ("call_order", "weather was called before", a_turn(OSLO, FLIGHT, reply="Done."), P.WRONG_ORDER),
        ("call_order", "no successful call to weather", a_turn(FLIGHT, reply="Done."), P.WRONG_TOOL),
        ("reply_asks", "the reply asks no question", a_turn(reply="Fine."), P.DID_NOT_ASK),
        ("reply_mentions", "the turn ended without a reply", a_turn(OSLO, reply=None), P.GAVE_UP),
        ("reply_mentions", "the reply does not mention 'rain'", a_turn(OSLO, reply="7 degrees."), P.LEFT_OUT),
        ("reply_mentions", "the reply does not mention '7'", a_turn(OSLO, reply="It has 12."), P.UNSUPPORTED_CLAIM),
        ("reply_repeats", 'the reply does not mention "7"', a_turn(OSLO, reply="Rain."), P.LEFT_OUT),
        ("reply_repeats", 'the reply does not mention "7"', a_turn(OSLO, reply="It has 12."), P.UNSUPPORTED_CLAIM),
        ("reply_repeats", "there is no response of weather", a_turn(reply="Rain."), P.MISSING_CALL),
        ("reply_repeats", "there is no response of weather", a_turn(REFUSED, reply="Rain."), P.FAILED_CALL),
        ("reply_mentions", "the reply mentions 'sun', which it must not", a_turn(reply="Sun"), P.UNSUPPORTED_CLAIM),
    ],
)
def test_what_went_wrong_is_named(kind: str, reason: str, turn: TurnRecord, pattern: FailurePattern) -> None:
    assert name_failure(an_item(kind, reason), [turn]) is pattern


@pytest.mark.parametrize(
    ("channel", "reason", "turn", "pattern"),
    [
        (FocusOn.REPLY, "The price was made up.", a_turn(OSLO, reply="Rain."), P.UNSUPPORTED_CLAIM),
        (FocusOn.REPLY, "It is rude.", a_turn(OSLO, reply="Rain, 7 degrees."), P.LEFT_OUT),
        (FocusOn.REPLY, "It is rude.", a_turn(OSLO, reply=None), P.GAVE_UP),
        (FocusOn.TOOL_CALLS, "The city is wrong.", a_turn(reply="Rain."), P.MISSING_CALL),
        (FocusOn.TOOL_CALLS, "The argument city is wrong.", a_turn(ROME, reply="Sun."), P.WRONG_ARGUMENT),
        (FocusOn.TOOL_RESPONSE, "Nothing was received.", a_turn(REFUSED, reply="Sorry."), P.FAILED_CALL),
        (FocusOn.THINKING, "It does not plan.", a_turn(OSLO, reply="Rain."), P.OTHER),
    ],
)
def test_where_no_check_says_it_the_turn_and_the_judge_do(
    channel: FocusOn, reason: str, turn: TurnRecord, pattern: FailurePattern
) -> None:
    assert name_failure(an_item("llm", reason, channel), [turn]) is pattern


def test_a_number_of_an_earlier_turn_is_no_claim_and_one_of_a_later_turn_is() -> None:
    first = a_turn(("weather", {"city": "Oslo"}, '{"degrees": "1,200"}'), reply="ok")
    later = a_turn(reply="1200 degrees").model_copy(update={"index": 1})
    failed = FailedItem("t1", 1, "reply_mentions", FocusOn.REPLY, None, "?", "the reply does not mention 'rain'")
    assert name_failure(failed, [first, later]) is P.LEFT_OUT
    assert name_failure(failed, [first.model_copy(update={"index": 2}), later]) is P.UNSUPPORTED_CLAIM


def test_every_failure_of_a_version_is_under_one_pattern(tmp_path: Path) -> None:
    log: Log = build_sample_log(f"sqlite:///{tmp_path}/log.db")
    found = find_patterns(log, version="v0003", earlier=("v0001",), origin="evaluation")
    failed = sum_counts([cell for cell in verdict_cube(log) if cell.origin == "evaluation"], "version")["v0003"].failed
    assert sum(one.items for one in found.figures) == failed > 0
    assert all(0 < one.share <= 1 and one.share_before is not None for one in found.figures)
    assert all(len(one.behind) == one.items for one in found.figures)
    log.close()
