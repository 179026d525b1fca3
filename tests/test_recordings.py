"""From a chat with real tools to a scenario that is played without them."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.chat import ChatSession, Equipment, TurnEnded
from agent.mcp_servers import McpServer
from agent.mcp_tools import open_mcp_tools
from env_sim.recordings import recorded_steps, recorded_turns
from env_sim.simulator import Simulator, SimulatorError
from store.database import Log
from store.records import Item, RecordedCall, ReferenceStep, Scenario, ToolSpec
from store.scenarios import add_scenarios, get_scenario
from store.trajectories import ToolAnswer
from store.turns import get_turns
from store.vocabulary import FocusOn, Split, ToolSource
from tests.scripted_gateway import Policy, Says, ScriptedGateway, call
from tests.turn_records import call as answered
from tests.turn_records import turn, unanswered

SERVER = Path(__file__).parent / "mcp_server.py"
REPLIED = Item(id="replied", focus_on=FocusOn.REPLY, question="Is there a reply?", weight=1)


def script(*says: Says) -> Policy:
    left = iter(says)
    return lambda body: next(left)


async def chat(log: Log, policy: Policy, specs: tuple[ToolSpec, ...], answer: Any, *said: str) -> str:
    """The id of a chat in which `said` was said."""
    client = ScriptedGateway(log, policy).client()
    session = ChatSession("http://gateway", log, Equipment(specs, answer), http_client=client)
    for text in said:
        assert isinstance([event async for event in session.say(text)][-1], TurnEnded)
    await session.close()
    return session.id


def scenario_of(log: Log, chat_id: str, tools: tuple[ToolSpec, ...]) -> Scenario:
    turns = tuple(turn.model_copy(update={"checklist": (REPLIED,)}) for turn in recorded_turns(log, chat_id))
    made = Scenario(
        name="notes", domain="notes", source="chat", split=Split.TRAIN, seed=0, system="", tools=tools, turns=turns
    )
    add_scenarios(log, [made])
    return get_scenario(log, made.hash)


def test_calls_of_an_mcp_server_are_replayed_when_the_server_is_gone(sqlite_log: Log, tmp_path: Path) -> None:
    """A chat turn calls a real server; its log becomes a scenario; the simulator answers equal calls as it did."""
    log = sqlite_log
    policy = script(
        Says(calls=(("add_note", '{"text": "milk", "times": 2}'), ("add_note", '{"times": "x"}'))),
        call("find_notes", word="milk"),
        Says("You have two notes on milk."),
        call("find_notes", word="milk"),
        Says("Still two."),
    )

    async def chat_with_server() -> tuple[str, tuple[ToolSpec, ...]]:
        server = McpServer(command=sys.executable, args=(str(SERVER),))
        async with open_mcp_tools({"notes": server}, tmp_path) as tools:
            said = ("Note milk, twice. How many are there?", "And now?")
            return await chat(log, policy, tools.specs, tools.answer, *said), tools.specs

    chat_id, specs = asyncio.run(chat_with_server())
    calls = [one for turn in get_turns(log, chat_id) for step in turn.steps for one in step.calls]
    assert [one.source for one in calls] == [ToolSource.REAL] * 4
    assert [one.is_error for one in calls] == [False, True, False, False]
    assert all(one.latency_ms is not None for one in calls)
    assert calls[2].response == '{"notes":["milk","milk"],"total":2}'

    made = scenario_of(log, chat_id, specs)
    assert [turn.user for turn in made.turns] == ["Note milk, twice. How many are there?", "And now?"]
    assert [step.reply for step in made.turns[0].reference] == [None, None, "You have two notes on milk."]
    assert made.turns[0].reference[0].calls[0] == RecordedCall(
        name="add_note", arguments={"text": "milk", "times": 2}, response="kept as number 2"
    )

    async def replay() -> list[ToolAnswer]:
        simulator = Simulator(made, seed=1)
        answers = [
            await simulator.answer("add_note", {"times": 2.0, "text": "milk"}, "r1"),
            await simulator.answer("find_notes", {"word": "milk"}, "r2"),
        ]
        with pytest.raises(SimulatorError, match="find_notes"):
            await simulator.answer("find_notes", {"word": "bread"}, "r3")
        return answers

    kept, found = asyncio.run(replay())
    assert (kept.response, kept.source) == ("kept as number 2", ToolSource.RECORDED)
    assert (found.response, found.source) == ('{"notes":["milk","milk"],"total":2}', ToolSource.RECORDED)


CLOCK = ToolSpec(name="clock", description="The time", parameters={"type": "object", "properties": {}})


async def tell_time(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
    return ToolAnswer(call_id=call_id, response='{"time":"12:30"}', is_error=False, source=ToolSource.REAL)


def test_what_no_tool_said_is_no_recording(sqlite_log: Log) -> None:
    """A call that the graph refused, and one whose arguments are no JSON, are the policy's: the simulator judges them
    anew."""
    policy = script(
        Says(calls=(("clokc", "{}"), ("clock", "{}"), ("clock", "{broken"))),
        call("clokc"),
        Says("Half past twelve."),
    )
    chat_id = asyncio.run(chat(sqlite_log, policy, (CLOCK,), tell_time, "time?"))
    [turn] = recorded_turns(sqlite_log, chat_id)
    recorded = RecordedCall(name="clock", arguments={}, response='{"time":"12:30"}')
    assert [step.calls for step in turn.reference] == [(recorded,), ()]


def test_a_chat_that_broke_off_is_recorded_up_to_its_last_reply(sqlite_log: Log) -> None:
    policy = script(call("clock"), Says("Twelve."), Says("It is", finish_reason="length"))
    chat_id = asyncio.run(chat(sqlite_log, policy, (CLOCK,), tell_time, "time?", "again"))
    assert [turn.user for turn in get_turns(sqlite_log, chat_id)] == ["time?", "again"]
    assert [turn.user for turn in recorded_turns(sqlite_log, chat_id)] == ["time?"]


def test_a_call_that_an_outage_left_unanswered_is_no_recording() -> None:
    played = turn([unanswered("clock", {}), answered("clock", {}, "12:30")], "Twelve thirty.")
    recorded = RecordedCall(name="clock", arguments={}, response="12:30")
    assert recorded_steps(played) == (ReferenceStep(calls=(recorded,)), ReferenceStep(reply="Twelve thirty."))
    assert recorded_steps(turn([answered("clock", {}, "12:30")])) == ()
