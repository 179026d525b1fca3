"""A chat session: what happens while the agent works, what the log and the checkpoints hold, how it goes on."""

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import openai
import psycopg
import pytest
from sqlalchemy import make_url, text

from agent.approval import Decision, WaitingCall
from agent.chat import (
    ApprovalAsked,
    ChatEvent,
    ChatSession,
    Equipment,
    NothingWaits,
    TokenSaid,
    ToolAnswered,
    ToolCalled,
    TurnEnded,
)
from agent.checkpoints import open_checkpoints
from agent.tools import ToolOutage
from store.browsing import step_figures
from store.chats import CHECKPOINT_TABLES, delete_chat
from store.database import LOCK_TIMEOUT_S, Log, LogError
from store.records import ToolSpec
from store.trajectories import ToolAnswer, get_trajectory
from store.turns import get_turns
from store.vocabulary import Origin, StopReason, ToolSource
from tests.scripted_gateway import Policy, Refuses, RunningGateway, Says, ScriptedGateway, call

CLOCK = ToolSpec(name="clock", description="The time", parameters={"type": "object", "properties": {}})
ALARM = ToolSpec(name="alarm", description="Wakes everybody", parameters={"type": "object", "properties": {}})


async def tell_time(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
    return ToolAnswer(call_id=call_id, response='{"time":"[12:30]"}', is_error=False, source=ToolSource.REAL)


def looks_then_says(body: dict[str, Any]) -> Says:
    return Says("It is half past twelve.") if body["messages"][-1]["role"] == "tool" else call("clock")


def rings_then_says(body: dict[str, Any]) -> Says:
    last = body["messages"][-1]
    return Says(f"The alarm said: {last['content']}") if last["role"] == "tool" else call("alarm", hour=7)


class Desk:
    """A log with a scripted gateway before it; every visit is a process that knows nothing but the log."""

    def __init__(self, log: Log, policy: Policy, **options: Any) -> None:
        self.log = log
        self.gateway = ScriptedGateway(log, policy, **options)
        self.equipment = Equipment([CLOCK, ALARM], tell_time, ask_first=("alarm",))

    def visit(self, use: Callable[[ChatSession], Any], session: str | None = None) -> tuple[str, Any]:
        async def run() -> tuple[str, Any]:
            client = self.gateway.client()
            chat = ChatSession("http://gateway", self.log, self.equipment, session=session, http_client=client)
            try:
                return chat.id, await use(chat)
            finally:
                await chat.close()

        return asyncio.run(run())

    def say(self, *texts: str, session: str | None = None, **options: Any) -> tuple[str, list[ChatEvent]]:
        async def use(chat: ChatSession) -> list[ChatEvent]:
            return [event for one in texts async for event in chat.say(one, **options)]

        return self.visit(use, session)

    def decide(self, session: str, *decisions: Decision) -> list[ChatEvent]:
        async def use(chat: ChatSession) -> list[ChatEvent]:
            await chat.open()
            said = dict(zip([one.call_id for one in chat.waiting], decisions, strict=True))
            return [event async for event in chat.decide(said)]

        return self.visit(use, session)[1]

    def forget_checkpoints(self, session: str) -> None:
        with self.log.writing() as connection:
            for name in CHECKPOINT_TABLES:
                with contextlib.suppress(Exception), connection.begin_nested():
                    connection.execute(text(f"DELETE FROM {name} WHERE thread_id = '{session}'"))

    def checkpoints(self, session: str) -> int:
        with self.log.lookup() as connection:
            return connection.execute(text(f"SELECT count(*) FROM checkpoints WHERE thread_id = '{session}'")).scalar()

    def roles(self, request: int = -1) -> list[str]:
        return [message["role"] for message in self.gateway.requests[request]["messages"]]


def test_a_front_end_gets_the_events_as_they_happen(sqlite_log: Log) -> None:
    def policy(body: dict[str, Any]) -> Says:
        answers = [message for message in body["messages"] if message["role"] == "tool"]
        return Says("Twelve thirty", finish_reason="length") if len(answers) == 1 else call("clock", zone="x")

    session, events = Desk(sqlite_log, policy).say("time?")
    called, answered = events[:2]
    assert isinstance(called, ToolCalled) and isinstance(answered, ToolAnswered)
    assert (called.name, called.arguments) == ("clock", {"zone": "x"})
    assert (answered.name, answered.text, answered.is_error) == ("clock", '{"time":"[12:30]"}', False)
    assert answered.call_id == called.call_id and answered.source == ToolSource.REAL
    assert answered.latency_ms is not None and answered.latency_ms >= 0  # measured, as the tool did not say
    assert events[2:] == [TokenSaid("Twelve"), TokenSaid(" thirty"), TurnEnded(StopReason.MAX_TOKENS)]
    [turn] = get_turns(sqlite_log, session)
    assert turn.steps[0].calls[0].latency_ms == answered.latency_ms


def test_requests_are_streamed_with_messages_and_tools(sqlite_log: Log) -> None:
    desk = Desk(sqlite_log, lambda _: Says("hi"))
    desk.equipment = Equipment([CLOCK], tell_time, system="Be brief.")
    desk.say("hello")
    [request] = desk.gateway.requests
    assert request["stream"] is True
    assert desk.roles() == ["system", "user"]
    assert json.dumps(request["tools"]) == json.dumps([CLOCK.as_openai()])


@pytest.mark.parametrize("checkpoints", ["kept", "lost"])
def test_a_chat_goes_on_in_another_process(log: Log, checkpoints: str) -> None:
    desk = Desk(log, looks_then_says)
    session, _ = desk.say("first", "second")
    assert desk.checkpoints(session) == 1  # not one a step
    if checkpoints == "lost":
        desk.forget_checkpoints(session)
        assert desk.checkpoints(session) == 0
    desk.say("third", session=session)
    assert desk.roles(-2) == ["user", "assistant", "tool", "assistant"] * 2 + ["user"]
    before = desk.gateway.requests[-2]["messages"]
    assert before[1]["tool_calls"][0]["function"]["name"] == "clock"
    assert before[2]["content"] == '{"time":"[12:30]"}'
    assert [turn.user for turn in get_turns(log, session)] == ["first", "second", "third"]
    assert not any(figures.fork for figures in step_figures(log, session).values())
    assert desk.checkpoints(session) == 1


def test_checkpoints_that_say_something_else_than_the_log_are_not_believed(sqlite_log: Log) -> None:
    desk = Desk(sqlite_log, lambda body: Says(f"{len(body['messages'])} messages"))
    session, _ = desk.say("one")
    other, _ = desk.say("a", "b", "c")
    with sqlite_log.writing() as connection:
        connection.execute(text(f"DELETE FROM checkpoints WHERE thread_id = '{session}'"))
        connection.execute(text(f"UPDATE checkpoints SET thread_id = '{session}' WHERE thread_id = '{other}'"))
    desk.say("two", session=session)
    assert [message["content"] for message in desk.gateway.requests[-1]["messages"]] == ["one", "1 messages", "two"]


def test_an_unknown_session_is_refused(sqlite_log: Log) -> None:
    with pytest.raises(LogError, match="no-such-session"):
        Desk(sqlite_log, looks_then_says).say("hello", session="no-such-session")


def test_a_turn_that_fails_can_be_said_again(log: Log) -> None:
    trouble = [Refuses(500)]

    def policy(body: dict[str, Any]) -> Says | Refuses:
        if body["messages"][-1]["role"] == "tool" and trouble:
            return trouble.pop()
        return looks_then_says(body)

    desk = Desk(log, policy)

    async def use(chat: ChatSession) -> list[str]:
        with pytest.raises(openai.APIError):
            [event async for event in chat.say("time?")]
        [event async for event in chat.say("time?")]
        return [type(event).__name__ async for event in chat.say("and now?")]

    session, names = desk.visit(use)
    assert names[-1] == "TurnEnded"
    assert desk.roles(2) == ["user"]  # nothing of the broken turn is left in the dialogue
    assert [turn.user for turn in get_turns(log, session)] == ["time?", "and now?"]


def test_an_outage_of_a_tool_ends_the_turn(sqlite_log: Log) -> None:
    async def broken(*_: Any) -> ToolAnswer:
        raise ToolOutage("no battery")

    desk = Desk(sqlite_log, looks_then_says)
    desk.equipment = Equipment([CLOCK], broken)
    with pytest.raises(ToolOutage, match="no battery"):
        desk.say("time?")


def test_a_stopped_turn_leaves_the_dialogue_as_it_was(log: Log) -> None:
    """Over a real connection: the gateway sees that nobody waits any more, and keeps what was said until then."""

    async def use(url: str, session: str | None, *texts: str, stop_after: str = "") -> tuple[str, str]:
        chat = ChatSession(url, log, Equipment([CLOCK], tell_time), session=session)
        heard = ""
        try:
            for said in texts:
                heard = ""
                async with contextlib.aclosing(chat.say(said)) as events:
                    async for event in events:
                        heard += event.text if isinstance(event, TokenSaid) else ""
                        if heard == stop_after:
                            return chat.id, heard
        finally:
            await chat.close()
        return chat.id, heard

    with RunningGateway(log, lambda body: Says("one two three four five six"), pace_s=0.05) as gateway:
        session, _ = asyncio.run(use(gateway.url, None, "count"))
        asyncio.run(use(gateway.url, session, "again", stop_after="one two"))
        deadline = time.monotonic() + 10
        while len(turns := get_turns(log, session)) < 2:
            assert time.monotonic() < deadline, "the gateway did not notice that it was left"
            time.sleep(0.02)
        assert not turns[1].complete and turns[1].steps[0].content.startswith("one two")
        assert turns[1].steps[0].content != "one two three four five six"
        asyncio.run(use(gateway.url, session, "once more"))
        roles = [message["role"] for message in gateway.scripted.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert [turn.user for turn in get_turns(log, session)] == ["count", "once more"]


def test_a_turn_can_be_said_otherwise_and_the_log_keeps_both(log: Log) -> None:
    desk = Desk(log, lambda body: Says(f"You said {body['messages'][-1]['content']}."))
    session, _ = desk.say("one", "two")
    desk.say("deux", session=session, turn=1)
    assert [message["content"] for message in desk.gateway.requests[-1]["messages"]] == ["one", "You said one.", "deux"]
    assert [turn.user for turn in get_turns(log, session)] == ["one", "deux"]
    figures = step_figures(log, session)
    assert figures[1, 0].fork and not figures[0, 0].fork
    desk.say("un", session=session, turn=0)
    assert desk.roles() == ["user"]
    assert [turn.user for turn in get_turns(log, session)] == ["un"]
    with log.lookup() as connection:
        assert connection.execute(text("SELECT count(*) FROM step")).scalar() == 4  # append-only
    with pytest.raises(ValueError, match="1 turns"):
        desk.say("?", session=session, turn=2)


@pytest.mark.parametrize("checkpoints", ["kept", "lost"])
@pytest.mark.parametrize("approved", [True, False])
def test_a_marked_tool_waits_for_a_person_also_over_a_restart(log: Log, checkpoints: str, approved: bool) -> None:
    desk = Desk(log, rings_then_says)
    session, events = desk.say("wake us")
    called, asked = events
    assert isinstance(called, ToolCalled)
    assert asked == ApprovalAsked((WaitingCall(called.call_id, "alarm", {"hour": 7}),))
    assert get_turns(log, session)[0].steps[0].calls[0].response is None  # it has not run
    if checkpoints == "lost":
        desk.forget_checkpoints(session)
    answered, *rest = desk.decide(session, Decision(approved, "it is  Sunday"))
    assert isinstance(answered, ToolAnswered) and rest[-1] == TurnEnded(None)
    [turn] = get_turns(log, session)
    [made] = turn.steps[0].calls
    if approved:
        assert (made.response, made.source, made.is_error) == ('{"time":"[12:30]"}', ToolSource.REAL, False)
    else:
        expected = "error: the user refused this call: it is Sunday"
        assert (made.response, made.source, made.is_error) == (expected, ToolSource.PERSON, True)
        assert expected in turn.reply  # the policy was told
    with pytest.raises(NothingWaits):
        desk.visit(lambda chat: anext(chat.decide({})), session)


def test_no_call_of_a_message_runs_before_all_are_decided(sqlite_log: Log) -> None:
    both = Says(calls=(("clock", "{}"), ("alarm", '{"hour": 7}'), ("alarm", '{"hour": 8}')))
    desk = Desk(sqlite_log, lambda body: Says("done") if body["messages"][-1]["role"] == "tool" else both)
    session, events = desk.say("wake us")
    asked = events[-1]
    assert isinstance(asked, ApprovalAsked) and [one.arguments["hour"] for one in asked.calls] == [7, 8]
    assert [made.response for made in get_turns(sqlite_log, session)[0].steps[0].calls] == [None] * 3
    desk.decide(session, Decision(True), Decision(False))
    made = get_turns(sqlite_log, session)[0].steps[0].calls
    assert [one.source for one in made] == [ToolSource.REAL, ToolSource.REAL, ToolSource.PERSON]


def test_a_person_who_says_something_else_drops_the_waiting_turn(sqlite_log: Log) -> None:
    desk = Desk(sqlite_log, lambda b: Says("fine") if b["messages"][-1]["content"] == "never mind" else call("alarm"))
    session, _ = desk.say("wake us")
    desk.say("never mind", session=session)
    assert desk.roles() == ["user"]
    assert [turn.user for turn in get_turns(sqlite_log, session)] == ["never mind"]


def test_a_turn_at_its_step_limit_is_remembered_by_the_checkpoint(sqlite_log: Log) -> None:
    desk = Desk(sqlite_log, lambda _: call("clock"))
    session, events = desk.say("time?")
    assert events[-1] == TurnEnded(StopReason.MAX_STEPS)
    desk.say("go on", session=session)
    assert desk.roles(12) == ["user", *["assistant", "tool"] * 12, "user"]


def test_a_deleted_chat_leaves_nothing_behind(log: Log, log_url: str) -> None:
    desk = Desk(log, rings_then_says)
    session, _ = desk.say("wake us")
    kept, _ = desk.say("hello")
    assert get_trajectory(log, session).origin == Origin.CHAT
    delete_chat(log, session)
    url = make_url(log_url)
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(url.database))) as connection:
            dump = "\n".join(connection.iterdump())
    else:
        with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            dump = "\n".join(str(connection.execute(f'SELECT * FROM "{name}"').fetchall()) for (name,) in names)
    assert session not in dump and kept in dump


def test_checkpoints_wait_for_the_log_s_writers(sqlite_log: Log) -> None:
    """Eight chats at once on the file that others write: nobody fails, and each has its checkpoint."""
    desk = Desk(sqlite_log, looks_then_says)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            with sqlite_log.writing() as connection:
                connection.execute(text("UPDATE trajectory SET batch = 'x'"))
                time.sleep(0.01)
            time.sleep(0.02)  # SQLite lets nobody in between two transactions that follow at once

    async def chats() -> list[str]:
        client = desk.gateway.client()
        opened = [ChatSession("http://gateway", sqlite_log, desk.equipment, http_client=client) for _ in range(8)]

        async def talk(chat: ChatSession) -> str:
            for said in ("one", "two"):
                async for _ in chat.say(said):
                    pass
            await chat.close()
            return chat.id

        return list(await asyncio.gather(*map(talk, opened)))

    async def pragma(name: str) -> int:
        async with open_checkpoints(sqlite_log) as saver, saver.conn.execute(f"PRAGMA {name}") as cursor:  # type: ignore[attr-defined]
            return int((await cursor.fetchone())[0])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        ids = asyncio.run(chats())
    finally:
        done.set()
        writer.join()
    assert [desk.checkpoints(name) for name in ids] == [1] * 8
    assert all(len(get_turns(sqlite_log, name)) == 2 for name in ids)
    assert asyncio.run(pragma("busy_timeout")) == LOCK_TIMEOUT_S * 1000
