"""Turns a second that code checks decide, against reading the same turns' JSON.

And the whole way of these turns, from the log to verdict and reward rows, against only reading them out of the log.
"""

import asyncio
import json
import shutil
import time
from pathlib import Path

from benchmarks.line import Line
from reward.checks import decide_check
from reward.judge import Judge
from store.database import Log, open_log
from store.records import (
    Called,
    CallRecord,
    Check,
    Item,
    NotCalled,
    ReplyAsks,
    ReplyMentions,
    ResponseReceived,
    Scenario,
    ScenarioTurn,
    StepRecord,
    TurnRecord,
)
from store.scenarios import add_scenarios
from store.steps import StepToRecord, record_steps
from store.trajectories import (
    NewTrajectory,
    ToolAnswer,
    create_trajectories,
    end_trajectory,
    record_tool_answers,
)
from store.turns import turns_of
from store.vocabulary import FocusOn, Origin, Split, StopReason, ToolSource

TURNS = 10_000
TURNS_EACH = 4
"""Of a dialogue in the log."""
AT_ONCE = 500
CHECKS: list[Check] = [
    Called(tool="find", arguments={"city": "Paris", "seats": 2}),
    ResponseReceived(tool="find", values=("AZ 10",)),
    ReplyMentions(all_of=(("AZ 10",), ("1200",))),
    ReplyAsks(about=("date",)),
    NotCalled(tools=("cancel",)),
]
CHANNELS = (FocusOn.TOOL_CALLS, FocusOn.TOOL_RESPONSE, FocusOn.REPLY, FocusOn.REPLY, FocusOn.TOOL_CALLS)


def measure(home: Path) -> list[Line]:
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
        ),
        _measure_judge(home / "checks"),
    ]


def _measure_judge(folder: Path) -> Line:
    """Plan, verdict rows and reward rows of the same turns in a log."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = open_log(f"sqlite:///{folder / 'log.db'}")
    names = _fill(log)
    began = time.perf_counter()
    for start in range(0, len(names), AT_ONCE):
        turns_of(log, names[start : start + AT_ONCE])
    peer = TURNS / (time.perf_counter() - began)
    began = time.perf_counter()
    report = asyncio.run(Judge(log).judge_log(names))
    ours = TURNS / (time.perf_counter() - began)
    log.close()
    assert (report.turns, sum(report.outcomes.values())) == (TURNS, TURNS * len(CHECKS))
    return Line(
        "the same judged in a log: plan, verdicts, rewards written",
        f"{ours:.0f}/s",
        f"reading these turns {peer:.0f}/s",
        f"{ours / peer:.2f}",
        "–",
    )


def _fill(log: Log) -> list[str]:
    checklist = tuple(
        Item(id=check.kind, focus_on=channel, question="Does it hold?", weight=1 / len(CHECKS), check=check)
        for check, channel in zip(CHECKS, CHANNELS, strict=True)
    )
    scenario = Scenario(
        name="checks",
        domain="travel",
        source="bench",
        split=Split.TRAIN,
        seed=1,
        system="",
        tools=(),
        turns=(ScenarioTurn(user="Book it.", checklist=checklist),) * TURNS_EACH,
    )
    add_scenarios(log, [scenario])
    names = [f"t{n}" for n in range(TURNS // TURNS_EACH)]
    create_trajectories(log, [NewTrajectory(name, Origin.ROLLOUT, scenario.hash) for name in names])
    for start in range(0, len(names), AT_ONCE):
        chunk = list(enumerate(names))[start : start + AT_ONCE]
        parents: list[int | None] = [None] * len(chunk)
        for turn in range(TURNS_EACH):
            for step in range(3):
                recorded = [
                    _step(name, turn, _turn(n * TURNS_EACH + turn).steps[step], parent)
                    for (n, name), parent in zip(chunk, parents, strict=True)
                ]
                parents = [made if isinstance(made, int) else None for made in record_steps(log, recorded)]
        for n, name in chunk:
            record_tool_answers(log, name, _answers(n))
            end_trajectory(log, name, StopReason.COMPLETED)
    return names


def _answers(n: int) -> list[ToolAnswer]:
    made = [(turn, call) for turn in range(TURNS_EACH) for call in _calls(_turn(n * TURNS_EACH + turn))]
    return [ToolAnswer(f"{turn}{call.call_id}", call.response or "", False, ToolSource.WORLD) for turn, call in made]


def _calls(turn: TurnRecord) -> list[CallRecord]:
    return [call for step in turn.steps for call in step.calls]


def _step(name: str, turn: int, step: StepRecord, parent: int | None) -> StepToRecord:
    calls = [
        {"id": f"{turn}{call.call_id}", "name": call.name, "arguments": json.dumps(call.arguments)}
        for call in step.calls
    ]
    return StepToRecord(
        trajectory_id=name,
        turn_index=turn,
        index=step.index,
        parent_id=parent,
        user="Book it.",
        version="v0001",
        new_messages=[],
        tools_hash=None,
        message={"content": step.content, "reasoning": "", "tool_calls": calls},
        delta_ids=[1],
        sampled_ids=[2],
        logprobs=[0.0],
        context_tokens=6 * turn + 2 * step.index + 1,
        finish_reason="tool_calls" if calls else "stop",
        latency_ms=1.0,
        sampling={},
    )


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
