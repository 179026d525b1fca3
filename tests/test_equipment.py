"""What a chat's agent works with after a restart: a world, or an LLM, that stands where the dialogue left it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dashboard.chats import scenario_of
from dashboard.equipment import equip
from dashboard.process import settings_environment
from store.chats import ChatSetup, create_chat
from store.database import Log, LogError
from store.records import RecordedCall, Scenario, ToolSpec
from store.settings import load_settings
from store.trajectories import ToolAnswer, record_step, record_tool_answers
from store.vocabulary import ChatTools, ToolSource
from tests.store_examples import a_call, a_step

SEED = next(n for n in range(199) if "find_flight" in {tool.name for tool in scenario_of("travel", n).tools})
ASKED = {"query": "Porto"}


class CountingLlm:
    """Answers with how often it was asked, and remembers the history that it was shown."""

    provenance: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.histories: list[list[RecordedCall]] = []

    async def answer(
        self, scenario: Scenario, seed: int, spec: ToolSpec, arguments: dict[str, Any], history: list[RecordedCall]
    ) -> str:
        self.histories.append(history)
        return json.dumps({"times": len(self.histories)})


def ask(log: Log, llm: Any, call_id: str, setup: ChatSetup) -> ToolAnswer:
    """As a process that has just opened the chat."""
    equipment = equip(log, "chat-1", setup, SEED, llm)
    return asyncio.run(equipment.answer("find_flight", ASKED, call_id))


def test_an_llm_remembers_what_it_said_before_a_restart(sqlite_log: Log) -> None:
    setup, llm = ChatSetup(ChatTools.LLM, "travel"), CountingLlm()
    create_chat(sqlite_log, "chat-1", setup, version=None, seed=SEED)
    calls = [a_call("c0", json.dumps(ASKED), "find_flight")]
    record_step(sqlite_log, a_step("chat-1", message={"content": "", "reasoning": "", "tool_calls": calls}))
    said = ask(sqlite_log, llm, "c0", setup)
    assert (said.response, said.source) == ('{"times": 1}', ToolSource.LLM)
    record_tool_answers(sqlite_log, "chat-1", [ToolAnswer("c0", '{"logged": true}', False, ToolSource.LLM)])
    again = ask(sqlite_log, llm, "c1", setup)
    assert again.response == '{"times": 2}'  # the logged call was not asked of the LLM again
    [before] = llm.histories[-1]
    assert (before.name, before.response) == ("find_flight", '{"logged": true}')


def test_the_world_answers_what_the_llm_does_not_have_to(sqlite_log: Log) -> None:
    setup, llm = ChatSetup(ChatTools.WORLD, "travel"), CountingLlm()
    create_chat(sqlite_log, "chat-1", setup, version=None, seed=SEED)
    assert ask(sqlite_log, llm, "c0", setup).source in (ToolSource.WORLD, ToolSource.RECORDED)
    assert llm.histories == []


def test_the_dashboard_of_a_configured_parent_has_its_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text('[simulator]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n[gateway]\nport = 8099\n')
    parent = load_settings(file)
    for name, value in settings_environment(parent).items():
        monkeypatch.setenv(name, value)
    child = load_settings()
    assert (child.simulator, child.gateway, child.url) == (parent.simulator, parent.gateway, parent.url)


def test_a_chat_that_needs_an_llm_says_so(sqlite_log: Log) -> None:
    with pytest.raises(LogError, match="simulator"):
        equip(sqlite_log, None, ChatSetup(ChatTools.LLM, "travel"), SEED, None)
