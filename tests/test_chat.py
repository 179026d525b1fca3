"""Chatting: what is shown while the agent works, and what the log holds afterwards."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agent.chat import ChatSession, TokenSaid, ToolAnswered, ToolCalled, TurnEnded, run_chat
from agent.tools import ToolOutage
from store.database import Log, LogError, open_log
from store.records import ToolSpec
from store.trajectories import ToolAnswer, list_trajectories
from store.turns import get_turns
from store.vocabulary import Origin, StopReason, ToolSource
from tests.scripted_gateway import Policy, Refuses, Says, ScriptedGateway, call

CLOCK = ToolSpec(name="clock", description="The time", parameters={"type": "object", "properties": {}})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_log(f"sqlite:///{tmp_path}/log.db")
    yield opened
    opened.close()


async def tell_time(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
    return ToolAnswer(call_id=call_id, response='{"time":"[12:30]"}', is_error=False, source=ToolSource.REAL)


def looks_then_says(body: dict[str, Any]) -> Says:
    return Says("It is half past twelve.") if body["messages"][-1]["role"] == "tool" else call("clock")


def chat(log: Log, *lines: str, policy: Policy = looks_then_says, answer: Any = tell_time, **options: Any) -> str:
    """What the terminal shows when `lines` are typed."""
    typed = iter(lines)

    async def read_line() -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    out = io.StringIO()
    asyncio.run(
        run_chat(
            "http://gateway",
            log,
            [CLOCK],
            answer,
            console=Console(file=out, width=200, highlight=False),
            read_line=read_line,
            http_client=ScriptedGateway(log, policy).client(),
            **options,
        )
    )
    return out.getvalue()


def test_tool_calls_their_results_and_the_reply_are_shown_and_logged(log: Log) -> None:
    shown = chat(log, "what time is it?", "/quit", "never read")
    assert shown.index("→ clock") < shown.index('← {"time":"[12:30]"}') < shown.index("It is half past twelve.")
    [session] = list_trajectories(log, origin=Origin.CHAT)
    assert session.id in shown
    [turn] = get_turns(log, session.id)
    assert (turn.user, turn.reply) == ("what time is it?", "It is half past twelve.")
    assert turn.steps[0].calls[0].source == ToolSource.REAL


def test_new_starts_another_session_and_tools_are_listed(log: Log) -> None:
    shown = chat(log, "hello", "/tools", "/new", "hello again", "/what")
    assert "clock  The time" in shown
    assert "unknown command /what" in shown
    sessions = list_trajectories(log, origin=Origin.CHAT)
    assert [[turn.user for turn in get_turns(log, one.id)] for one in sessions] == [["hello again"], ["hello"]]


def test_a_session_can_be_gone_on_with(log: Log) -> None:
    chat(log, "first")
    [session] = list_trajectories(log)
    seen: list[list[dict[str, Any]]] = []

    def remember(body: dict[str, Any]) -> Says:
        seen.append(body["messages"])
        return Says("yes")

    gateway = ScriptedGateway(log, remember)

    async def second_turn() -> None:
        session_2 = ChatSession(
            "http://gateway", log, [CLOCK], tell_time, session=session.id, http_client=gateway.client()
        )
        async for _ in session_2.say("second"):
            pass
        await session_2.close()

    asyncio.run(second_turn())
    assert [message["role"] for message in seen[0]] == ["user", "assistant", "tool", "assistant", "user"]
    assert seen[0][1]["tool_calls"][0]["function"]["name"] == "clock"
    assert seen[0][2]["content"] == '{"time":"[12:30]"}'


def test_an_unknown_session_is_refused(log: Log) -> None:
    with pytest.raises(LogError, match="no-such-session"):
        chat(log, session="no-such-session")


def test_a_gateway_or_tool_in_trouble_is_shown_and_the_chat_goes_on(log: Log) -> None:
    trouble = iter([Refuses(500)])
    shown = chat(log, "one", "two", policy=lambda body: next(trouble, None) or looks_then_says(body))
    assert "the gateway did not answer" in shown
    assert "It is half past twelve." in shown

    async def broken(*_: Any) -> ToolAnswer:
        raise ToolOutage("no battery")

    assert "a tool is out of order: no battery" in chat(log, "three", answer=broken)


def test_a_front_end_gets_the_events_as_they_happen(log: Log) -> None:
    def policy(body: dict[str, Any]) -> Says:
        answers = [message for message in body["messages"] if message["role"] == "tool"]
        return Says("Twelve thirty", finish_reason="length") if len(answers) == 1 else call("clock", zone="x")

    async def events() -> list[Any]:
        gateway = ScriptedGateway(log, policy)
        session = ChatSession("http://gateway", log, [CLOCK], tell_time, http_client=gateway.client())
        return [event async for event in session.say("time?")]

    assert asyncio.run(events()) == [
        ToolCalled("clock", {"zone": "x"}),
        ToolAnswered("clock", '{"time":"[12:30]"}', False),
        TokenSaid("Twelve"),
        TokenSaid(" thirty"),
        TurnEnded(StopReason.MAX_TOKENS),
    ]


def test_requests_are_streamed_with_messages_and_tools(log: Log) -> None:
    gateway = ScriptedGateway(log, lambda _: Says("hi"))

    async def say() -> None:
        session = ChatSession(
            "http://gateway", log, [CLOCK], tell_time, system="Be brief.", http_client=gateway.client()
        )
        async for _ in session.say("hello"):
            pass

    asyncio.run(say())
    [request] = gateway.requests
    assert request["stream"] is True
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert json.dumps(request["tools"]) == json.dumps([CLOCK.as_openai()])
