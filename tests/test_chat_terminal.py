"""The chat in the terminal: what is typed, what is shown, what is in the log afterwards."""

import asyncio
import getpass
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from agent.chat import Equipment
from agent.chat_terminal import COMMANDS, run_chat
from agent.tools import ToolOutage
from checkloop import app
from store.chats import chat_steps, list_chats
from store.database import Log, LogError
from store.ratings import ratings_of
from store.trajectories import ToolAnswer, list_trajectories
from store.turns import get_turns
from store.versions import add_version, set_version_state
from store.vocabulary import Origin, ToolSource, VersionState
from tests.scripted_gateway import Policy, Refuses, RunningGateway, Says, ScriptedGateway, call
from tests.test_chat import ALARM, CLOCK, looks_then_says, rings_then_says

LONG = json.dumps({"times": [f"{hour}:{minute:02}" for hour in range(24) for minute in range(0, 60, 20)]})


async def tell_time(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
    return ToolAnswer(call_id, '{"time":"[12:30]"}', False, ToolSource.REAL, 2.0)


def chat(log: Log, *lines: str, policy: Policy = looks_then_says, answer: Any = tell_time, **options: Any) -> str:
    """What the terminal shows when `lines` are typed."""
    typed = iter(lines)
    out = io.StringIO()

    async def read_line(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    async def equip(_: str | None) -> Equipment:
        return Equipment([CLOCK, ALARM], answer, ask_first=("alarm",))

    talk = run_chat(
        "http://gateway",
        log,
        equip,
        console=Console(file=out, width=100, highlight=False),
        read_line=read_line,
        http_client=ScriptedGateway(log, policy).client(),
        **options,
    )
    asyncio.run(talk)
    return out.getvalue()


def only_chat(log: Log) -> str:
    [session] = list_trajectories(log, origin=Origin.CHAT)
    return session.id


def test_tool_calls_their_results_and_the_reply_are_shown_and_logged(sqlite_log: Log) -> None:
    shown = chat(sqlite_log, "what time is it?", "/quit", "never read")
    assert shown.index("→ clock") < shown.index('← clock (2 ms) {"time":"[12:30]"}')
    assert shown.index("← clock") < shown.index("It is half past twelve.")
    assert only_chat(sqlite_log) in shown
    [turn] = get_turns(sqlite_log, only_chat(sqlite_log))
    assert (turn.user, turn.reply) == ("what time is it?", "It is half past twelve.")


def test_a_long_result_is_a_line_that_can_be_seen_whole(sqlite_log: Log) -> None:
    async def at_length(name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        return ToolAnswer(call_id, LONG, False, ToolSource.REAL, 1500.0)

    folded = chat(sqlite_log, "times?", answer=at_length)
    [line] = [line for line in folded.splitlines() if "← clock" in line]
    assert "1,500 ms" in line and "/show 2" in line and len(line) < 110 and "23:40" not in folded
    assert '"23:40"' in chat(sqlite_log, "times?", "/show 2", answer=at_length)
    assert "called no tool" in chat(sqlite_log, "/show")


def test_new_starts_another_chat_and_tools_and_commands_are_listed(sqlite_log: Log) -> None:
    shown = chat(sqlite_log, "hello", "/tools", "/new", "hello again", "/what", "/help")
    assert "clock  The time" in shown and "alarm  Wakes everybody (asks first)" in shown
    assert "unknown command /what" in shown
    assert all(name in shown for name in COMMANDS)
    sessions = list_trajectories(sqlite_log, origin=Origin.CHAT)
    assert [[turn.user for turn in get_turns(sqlite_log, one.id)] for one in sessions] == [["hello again"], ["hello"]]


def test_the_last_turn_is_said_anew_in_the_same_or_other_words(sqlite_log: Log) -> None:
    heard: list[str] = []

    def remember(body: dict[str, Any]) -> Says:
        heard.append(body["messages"][-1]["content"])
        return Says(f"answer {len(heard)}")

    shown = chat(sqlite_log, "/again", "hello", "/again", "/again good day", policy=remember)
    assert "nothing was said yet" in shown
    assert heard == ["hello", "hello", "good day"]
    [turn] = get_turns(sqlite_log, only_chat(sqlite_log))
    assert (turn.user, turn.reply) == ("good day", "answer 3")
    assert len(chat_steps(sqlite_log, only_chat(sqlite_log))) == 3, "the log keeps all that was said"


def test_chats_are_listed_and_gone_on_with(sqlite_log: Log) -> None:
    chat(sqlite_log, "hello there")
    first = only_chat(sqlite_log)
    sqlite_log_row = {one.id: one for one in list_trajectories(sqlite_log)}[first]
    assert sqlite_log_row.chat is None  # the test's tools are not those of a chat that could be equipped again
    seen: list[list[str]] = []

    def remember(body: dict[str, Any]) -> Says:
        seen.append([message["content"] for message in body["messages"]])
        return Says("yes")

    shown = chat(sqlite_log, f"/resume {first}", "and now?", policy=remember)
    assert "turns so far: 1" in shown and "It is half past twelve." in shown
    assert seen[0][0] == "hello there" and seen[0][-1] == "and now?"
    assert "there is no trajectory" in chat(sqlite_log, "/resume nothing-like-it")


def test_the_list_shows_what_people_started(sqlite_log: Log) -> None:
    from store.chats import ChatSetup, create_chat, rename_chat
    from store.vocabulary import ChatTools

    for name in ("chat-aa1", "chat-aa2", "chat-bb1"):
        create_chat(sqlite_log, name, ChatSetup(ChatTools.REAL), version=None, seed=1)
    rename_chat(sqlite_log, "chat-bb1", "Trains [b]to[/b] Porto")
    shown = chat(sqlite_log, "/resume", "/resume chat-aa", "/resume chat-b")
    assert "chat-aa1" in shown and "Trains [b]to[/b] Porto" in shown
    assert "2 chats begin with 'chat-aa'" in shown
    assert "chat chat-bb1" in shown
    assert {one.id for one in list_chats(sqlite_log, limit=10)} == {"chat-aa1", "chat-aa2", "chat-bb1"}


def test_an_unknown_session_is_refused(sqlite_log: Log) -> None:
    with pytest.raises(LogError, match="no-such-session"):
        chat(sqlite_log, session="no-such-session")


def test_turns_are_rated_with_a_comment(sqlite_log: Log) -> None:
    shown = chat(sqlite_log, "/rate up", "one", "/rate up", "two", "/rate down  far too late ", "/rate sideways")
    assert "nothing was said yet" in shown and "turn 2 rated down" in shown and "say /rate up or" in shown
    session = only_chat(sqlite_log)
    ratings = ratings_of(sqlite_log, [session])
    assert [(ratings[session, n].value, ratings[session, n].comment) for n in (0, 1)] == [(1, ""), (-1, "far too late")]
    assert ratings[session, 0].person == getpass.getuser()
    assert "turn 2 rated none" in chat(sqlite_log, "/rate none", session=session)
    assert list(ratings_of(sqlite_log, [session])) == [(session, 0)]


def test_the_version_is_said(sqlite_log: Log) -> None:
    assert "live: none" in chat(sqlite_log, "/version")
    add_version(sqlite_log, "v0007", parent=None, path="x", files={})
    set_version_state(sqlite_log, "v0007", VersionState.LIVE, "first")
    shown = chat(sqlite_log, "time?", "/version")
    assert "live: v0007 · last answer: v0001" in shown  # the gateway of the test says that v0001 sampled it


@pytest.mark.parametrize(
    ("said", "runs"), [("y", True), ("not on a Sunday", False), ("n", False)], ids=["yes", "a reason", "no"]
)
def test_a_marked_tool_asks_before_it_runs(sqlite_log: Log, said: str, runs: bool) -> None:
    shown = chat(sqlite_log, "wake us", said, policy=rings_then_says)
    assert "? alarm hour=7" in shown
    [turn] = get_turns(sqlite_log, only_chat(sqlite_log))
    made = turn.steps[0].calls[0]
    assert made.source == (ToolSource.REAL if runs else ToolSource.PERSON)
    reason = ": not on a Sunday" if said.startswith("not") else ""
    assert runs or made.response == f"error: the user refused this call{reason}"
    assert turn.complete


def test_a_question_left_open_is_asked_again_by_the_next_visit(sqlite_log: Log) -> None:
    chat(sqlite_log, "wake us", policy=rings_then_says)
    session = only_chat(sqlite_log)
    assert not get_turns(sqlite_log, session)[0].complete
    shown = chat(sqlite_log, "y", policy=rings_then_says, session=session)
    assert "? alarm hour=7" in shown and re.search(r"The alarm said", shown)


def test_a_gateway_or_tool_in_trouble_is_shown_and_the_chat_goes_on(sqlite_log: Log) -> None:
    trouble = iter([Refuses(500)])
    shown = chat(sqlite_log, "one", "two", policy=lambda body: next(trouble, None) or looks_then_says(body))
    assert "the gateway did not answer" in shown
    assert "It is half past twelve." in shown

    async def broken(*_: Any) -> ToolAnswer:
        raise ToolOutage("no battery")

    assert "a tool is out of order: no battery" in chat(sqlite_log, "three", answer=broken)


def test_text_of_models_and_tools_is_no_markup(sqlite_log: Log) -> None:
    def policy(body: dict[str, Any]) -> Says:
        return Says("[bold]loud[/bold]") if body["messages"][-1]["role"] == "tool" else call("clock", x="[red]y[/red]")

    shown = chat(sqlite_log, "hello", "/show", policy=policy)
    assert "[bold]loud[/bold]" in shown and shown.count("[red]y[/red]") == 2


def test_the_command_chats_and_goes_on_with_a_chat(sqlite_log: Log, tmp_path: Path) -> None:
    def policy(body: dict[str, Any]) -> Says:
        last = body["messages"][-1]
        return Says(f"It is {last['content']}.") if last["role"] == "tool" else call("calculate", expression="17 * 23")

    def run(typed: str, *options: str) -> str:
        environment = {"CHECKLOOP_DATABASE_URL": sqlite_log.url, "CHECKLOOP_GATEWAY__PORT": str(gateway.port)}
        command = [sys.executable, "-m", "checkloop", "chat", *options]
        done = subprocess.run(
            command, input=typed, env=os.environ | environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with RunningGateway(sqlite_log, policy) as gateway:
        shown = run("what is 17 times 23?\n/rate up quick\n/quit\n", "--tools", "real")
        assert "It is 391." in shown and "← calculate" in shown and "turn 1 rated up" in shown
        [listed] = list_chats(sqlite_log, limit=5)
        assert listed.chat == {"tools": "real", "domain": None, "ask_first": []}
        assert "turns so far: 1" in run("again?\n", "--session", listed.id)
        assert len(get_turns(sqlite_log, listed.id)) == 2
        run("hello\n", "--ask-first", "calculate", "--tools", "real")
        assert list_chats(sqlite_log, limit=1)[0].chat == {"tools": "real", "domain": None, "ask_first": ["calculate"]}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--ask-first", "fly"), "there is no tool 'fly'; this chat has"),
        (("--ask-first", "order_product", "--trust"), "give one of the two"),
    ],
)
def test_what_cannot_be_asked_about_is_refused(
    sqlite_log: Log, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], why: str
) -> None:
    monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)
    said = CliRunner().invoke(app, ["chat", "--domain", "shop", *options])
    assert said.exit_code == 1 and why in str(said.exception)


def test_the_command_chats_with_the_tools_of_an_mcp_server(
    sqlite_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real MCP server; its calls wait for a person, what it answers is in the log as a real tool's, and the chat can
    only be gone on with where the server is."""
    servers = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": [str(Path(__file__).parent / "mcp_server.py")]}
    servers.write_text(json.dumps({"mcpServers": {"notes": server}}))

    def policy(body: dict[str, Any]) -> Says:
        last = body["messages"][-1]
        return Says(f"So: {last['content']}.") if last["role"] == "tool" else call("add_note", text="buy milk", times=2)

    def run(typed: str, *options: str) -> str:
        environment = {"CHECKLOOP_DATABASE_URL": sqlite_log.url, "CHECKLOOP_GATEWAY__PORT": str(gateway.port)}
        environment["CHECKLOOP_HOME"] = str(tmp_path)
        command = [sys.executable, "-m", "checkloop", "chat", *options]
        done = subprocess.run(
            command, input=typed, env=os.environ | environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with RunningGateway(sqlite_log, policy) as gateway:
        shown = run("note it\ny\n/quit\n", "--mcp", str(servers))
        assert "So: kept as number 2." in shown
        [listed] = list_chats(sqlite_log, limit=5)
        assert listed.chat is not None and listed.chat["tools"] == "mcp" and "add_note" in listed.chat["ask_first"]
        (turn,) = get_turns(sqlite_log, listed.id)
        assert [(c.name, c.response, c.source) for c in turn.steps[0].calls] == [
            ("add_note", "kept as number 2", ToolSource.REAL)
        ]
        assert "kept as number" in run("more\ny\n", "--session", listed.id, "--mcp", str(servers))
        monkeypatch.setenv("CHECKLOOP_DATABASE_URL", sqlite_log.url)
        monkeypatch.setenv("CHECKLOOP_HOME", str(tmp_path))
        monkeypatch.setenv("CHECKLOOP_GATEWAY__PORT", str(gateway.port))
        assert "--mcp FILE" in str(CliRunner().invoke(app, ["chat", "--session", listed.id]).exception)
        servers.write_text(json.dumps({"mcpServers": {"notes": {"command": "no-such-program"}}}))
        assert "no-such-program" in str(CliRunner().invoke(app, ["chat", "--mcp", str(servers)]).exception)
