"""What the agent of a chat works with, put together for one use of it: the tools, and who answers them.

A simulated world is brought to where the dialogue stands by playing the logged calls again, when its first tool is
called: by then the log knows on which branch the chat goes on. Reads the log; loading this module loads LangGraph and
the OpenAI client, which takes seconds.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from agent.chat import Equipment
from agent.real_tools import SYSTEM, answer_really
from dashboard.chats import scenario_of, specs_of
from env_sim.llm_simulator import make_simulator
from env_sim.simulator import Simulator, SimulatorLlm
from store.chats import ChatSetup
from store.database import Log, LogError
from store.records import RecordedCall, Scenario, ToolSpec, TurnRecord
from store.settings import Settings
from store.trajectories import ToolAnswer
from store.turns import get_turns
from store.vocabulary import ChatTools, ToolSource

SIMULATED = (ToolSource.WORLD, ToolSource.RECORDED, ToolSource.LLM)


def make_llm(settings: Settings) -> SimulatorLlm | None:
    """The LLM simulator of the settings, to share between chats; None if they name none."""
    return make_simulator(settings)


def equip(log: Log, chat_id: str | None, setup: ChatSetup, seed: int, llm: SimulatorLlm | None) -> Equipment:
    """Raises LogError where the setup needs what is not here. `chat_id` None: of a new chat."""
    if setup.tools is ChatTools.MCP:
        raise LogError(
            "the tools of this chat are those of MCP servers: go on with it in the terminal, "
            f"`checkloop chat --mcp FILE --session {chat_id or 'ID'}`"
        )
    specs = specs_of(setup, seed)
    if setup.domain is None:
        return Equipment(specs, answer_really, setup.ask_first, SYSTEM, setup, seed)
    scenario = scenario_of(setup.domain, seed)
    if setup.tools is ChatTools.LLM:
        if llm is None:
            raise LogError("an LLM answers the tools of this chat: name it in checkloop.toml, section [simulator]")
        # Only the tools' schemas are left; everything that they say is the LLM's.
        scenario = scenario.model_copy(update={"world": None, "turns": ()})
    simulated = SimulatedTools(log, chat_id, scenario, seed, llm)
    return Equipment(specs, simulated.answer, setup.ask_first, scenario.system, setup, seed)


class SimulatedTools:
    """The simulator behind a chat's tools, at the state that the log's dialogue has brought it to."""

    def __init__(self, log: Log, chat_id: str | None, scenario: Scenario, seed: int, llm: SimulatorLlm | None) -> None:
        self._log = log
        self._chat_id = chat_id
        self._replayed = _LoggedAnswers(llm) if llm else None
        self._simulator = Simulator(scenario, seed, self._replayed)
        self._opening = asyncio.Lock()
        self._is_there = chat_id is None

    async def answer(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        async with self._opening:
            if not self._is_there and self._chat_id is not None:
                await self._play_again(await asyncio.to_thread(get_turns, self._log, self._chat_id))
                self._is_there = True
        return await self._simulator.answer(name, arguments, call_id)

    async def _play_again(self, turns: Sequence[TurnRecord]) -> None:
        """Refused calls changed nothing; the call that is being answered has no response yet."""
        for call in (call for turn in turns for step in turn.steps for call in step.calls):
            if call.arguments is None or call.response is None or call.source not in SIMULATED:
                continue
            if call.source == ToolSource.LLM and self._replayed:
                self._replayed.next = call.response
            await self._simulator.answer(call.name, dict(call.arguments), call.call_id)


class _LoggedAnswers:
    """The LLM, except while a dialogue is played again: then it says what it said then."""

    def __init__(self, llm: SimulatorLlm) -> None:
        self._llm = llm
        self.next: str | None = None

    @property
    def provenance(self) -> dict[str, str]:
        return self._llm.provenance

    async def answer(
        self, scenario: Scenario, seed: int, spec: ToolSpec, arguments: dict[str, Any], history: list[RecordedCall]
    ) -> str:
        logged, self.next = self.next, None
        return logged if logged is not None else await self._llm.answer(scenario, seed, spec, arguments, history)
