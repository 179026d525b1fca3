"""MCP servers as tools: a real server, over its standard input and output and over HTTP; what happens when it fails."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import agent.mcp_tools
from agent.mcp_servers import McpServer
from agent.mcp_tools import McpTools, open_mcp_tools
from agent.ports import free_port
from agent.tools import ToolOutage
from store.settings import SettingsError
from store.trajectories import ToolAnswer
from store.vocabulary import ToolSource

SERVER = str(Path(__file__).parent / "mcp_server.py")
NOTES = McpServer(command=sys.executable, args=(SERVER,))

Talk = Callable[[McpTools], Awaitable[Any]]


def talk(log_dir: Path, servers: dict[str, McpServer], what: Talk) -> Any:
    async def run() -> Any:
        async with open_mcp_tools(servers, log_dir) as tools:
            return await what(tools)

    return asyncio.run(run())


@pytest.fixture
def http_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/mcp", process
    process.kill()
    process.wait()


async def use_notes(tools: McpTools) -> list[ToolAnswer]:
    return [
        await tools.answer("add_note", {"text": "buy milk", "times": 2}, "c1"),
        await tools.answer("find_notes", {"word": "milk"}, "c2"),
        await tools.answer("draw_it", {}, "c3"),
        await tools.answer("add_note", {"times": "many"}, "c4"),
        await tools.answer("fail", {"how": "no way"}, "c5"),
        await tools.answer("fail", {"how": "protocol"}, "c6"),
    ]


def check_notes(answers: list[ToolAnswer]) -> None:
    kept, found, drawn, invalid, failed, refused = answers
    assert (kept.call_id, kept.response, kept.is_error) == ("c1", "kept as number 2", False)
    assert found.response == '{"notes":["buy milk","buy milk"],"total":2}', "in the form of its output schema"
    assert drawn.response == "a cat\n[image, not shown]"
    assert [answer.is_error for answer in answers] == [False, False, False, True, True, True]
    assert "text\n  Field required" in invalid.response
    assert failed.response.startswith("Error executing tool fail")
    assert refused.response == "error: how must not be 'protocol'"
    assert {answer.source for answer in answers} == {ToolSource.REAL}
    assert all(answer.latency_ms and answer.latency_ms > 0 for answer in answers)


def test_a_server_s_tools_are_specs_and_its_answers_are_the_tools(tmp_path: Path) -> None:
    """What a tool says is wrong with a call is its answer to the policy, not an outage."""

    async def specs_and_answers(tools: McpTools) -> Any:
        return tools.specs, await use_notes(tools)

    specs, answers = talk(tmp_path, {"notes": NOTES}, specs_and_answers)
    check_notes(answers)
    by_name = {spec.name: spec for spec in specs}
    assert set(by_name) == {"add_note", "find_notes", "fail", "draw_it", "environment"}
    assert by_name["add_note"].description == "Keeps a note."
    assert by_name["add_note"].response_schema is None
    assert by_name["add_note"].parameters["required"] == ["text"]
    assert by_name["find_notes"].response_schema is not None
    assert set(by_name["find_notes"].response_schema["properties"]) == {"notes", "total"}


def test_a_server_is_reached_over_http_and_its_death_is_an_outage(
    tmp_path: Path, http_server: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url, process = http_server

    async def until_it_dies(tools: McpTools) -> None:
        check_notes(await use_notes(tools))
        process.kill()
        process.wait()
        with pytest.raises(ToolOutage, match=f"MCP server 'notes' .*{url}"):
            await tools.answer("find_notes", {"word": "milk"}, "c7")

    talk(tmp_path, {"notes": McpServer(url=url)}, until_it_dies)


def test_a_server_that_dies_is_an_outage_with_its_last_words_and_is_started_anew(tmp_path: Path) -> None:
    async def let_it_die(tools: McpTools) -> ToolAnswer:
        await tools.answer("add_note", {"text": "milk"}, "c1")
        with pytest.raises(ToolOutage, match=r"'notes' failed on fail: .*it said 'out of paper', log: .*mcp-notes.log"):
            await tools.answer("fail", {"how": "exit"}, "c2")
        return await tools.answer("find_notes", {"word": "milk"}, "c3")

    assert talk(tmp_path, {"notes": NOTES}, let_it_die).response == '{"notes":[],"total":0}'


def test_a_call_that_takes_too_long_is_an_outage_and_others_are_answered(tmp_path: Path) -> None:
    async def call_both(tools: McpTools) -> tuple[BaseException | ToolAnswer, ...]:
        slow, quick = tools.answer("fail", {"how": "sleep"}, "c1"), tools.answer("add_note", {"text": "milk"}, "c2")
        return tuple(await asyncio.gather(slow, quick, return_exceptions=True))

    slow, quick = talk(tmp_path, {"notes": NOTES.model_copy(update={"timeout_s": 1.0})}, call_both)
    assert isinstance(slow, ToolOutage) and "did not answer fail in 1 s" in str(slow)
    assert quick.response == "kept as number 1"


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (McpServer(command="no-such-program"), "'s' cannot be started: .*no-such-program"),
        (McpServer(command=sys.executable, args=("-c", "import nothing_there")), "No module named 'nothing_there'"),
        (McpServer(command="sleep", args=("60",)), "'s' cannot be started: no answer in 1 s"),
        (McpServer(url="http://127.0.0.1:9/mcp"), "'s' cannot be reached: .*127.0.0.1:9"),
    ],
    ids=["no program", "ends at once", "says nothing", "nobody there"],
)
def test_a_server_that_does_not_start_is_an_outage_and_the_others_are_closed(
    server: McpServer, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = server.command == "sleep"
    monkeypatch.setattr(agent.mcp_tools, "START_TIMEOUT_S", 1.0 if mute else 30.0)
    with pytest.raises(ToolOutage, match=said):
        talk(tmp_path, {"s": server} if mute else {"notes": NOTES, "s": server}, use_notes)
    assert not [pid for pid in children() if "mcp_server.py" in command_of(pid) or "sleep" in command_of(pid)]


def test_a_name_that_two_servers_have_gets_the_server_s_in_front(tmp_path: Path) -> None:
    async def keep(tools: McpTools) -> Any:
        await tools.answer("work_notes_add_note", {"text": "milk"}, "c1")
        found = [await tools.answer(f"{one}_find_notes", {"word": "milk"}, "c2") for one in ("work_notes", "home")]
        return [spec.name for spec in tools.specs], [answer.response for answer in found]

    names, found = talk(tmp_path, {"work notes": NOTES, "home": NOTES}, keep)
    assert "work_notes_draw_it" in names and "home_draw_it" in names and len(set(names)) == 10
    assert found == ['{"notes":["milk"],"total":1}', '{"notes":[],"total":0}']


def test_names_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'a_b_add_note'"):
        talk(tmp_path, {"a b": NOTES, "a.b": NOTES}, use_notes)


def test_a_server_gets_the_environment_of_the_file_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "hidden")

    async def look(tools: McpTools) -> list[str]:
        names = ("GIVEN", "SECRET_OF_OURS")
        return [(await tools.answer("environment", {"name": name}, "c")).response for name in names]

    assert talk(tmp_path, {"notes": NOTES.model_copy(update={"env": {"GIVEN": "x"}})}, look) == ["x", "not set"]


def test_without_the_extra_the_message_says_which() -> None:
    program = "import sys; sys.modules['mcp'] = None\nimport agent.mcp_tools"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(SERVER).parent.parent
    )
    assert done.stderr.splitlines()[-1].startswith("store.settings.SettingsError: MCP servers need an extra")
    assert "pip install 'checkloop[mcp]'" in done.stderr


def children() -> list[int]:
    """Processes that this one started and that have not ended."""
    return [child.pid for child in psutil.Process(os.getpid()).children(recursive=True)]


def command_of(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return ""
