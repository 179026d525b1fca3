"""Turns a second that code checks decide, against reading the same turns' JSON."""

import json
import time
from pathlib import Path

from benchmarks.line import Line
from reward.checks import decide_check
from store.records import (
    Called,
    CallRecord,
    Check,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ResponseReceived,
    StepRecord,
    TurnRecord,
)

TURNS = 10_000
CHECKS: list[Check] = [
    Called(tool="find", arguments={"city": "Paris", "seats": 2}),
    ResponseReceived(tool="find", values=("AZ 10",)),
    ReplyMentions(all_of=(("AZ 10",), ("1200",))),
    ReplyAsks(about=("date",)),
    NotCalled(tools=("cancel",)),
]


def measure(_: Path) -> list[Line]:
    turns = [_turn(n) for n in range(TURNS)]  # new texts each time, so that no cache helps
    texts = [turn.model_dump_json() for turn in turns]
    began = time.perf_counter()
    for turn in turns:
        for check in CHECKS:
            decide_check(check, turn)
    ours = TURNS / (time.perf_counter() - began)
    began = time.perf_counter()
    for text in texts:
        json.loads(text)
    peer = TURNS / (time.perf_counter() - began)
    return [
        Line(
            "code checks: turns a second, five items each",
            f"{ours:.0f}/s",
            f"json.loads {peer:.0f}/s",
            f"{ours / peer:.2f}",
            "–",
        )
    ]


def _turn(n: int) -> TurnRecord:
    flights = json.dumps({"flights": [{"id": f"AZ {n}", "price": n}] * 5})
    booking = json.dumps({"booking": n, "status": "confirmed"})
    reply = f"I booked AZ {n} for 1,200 euro; it leaves Rome at 9:05 and lands in Paris at 11:10. " * 3
    find = CallRecord(call_id="a", name="find", arguments={"city": "paris", "seats": "2"}, response=flights)
    book = CallRecord(call_id="b", name="book", arguments={"id": f"AZ {n}"}, response=booking)
    steps = (
        StepRecord(index=0, calls=(find,)),
        StepRecord(index=1, calls=(book,)),
        StepRecord(index=2, content=reply, finish_reason="stop"),
    )
    return TurnRecord(trajectory_id="t", index=0, user="Book it.", steps=steps)
