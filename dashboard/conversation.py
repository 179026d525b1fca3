"""An open chat: `agent.chat.ChatSession` over the simulated tools of one bundled domain, for a page that is not async.

The gateway records the steps, the session the tools' answers. Loading this module loads LangGraph and the OpenAI
client, which takes seconds: the chat page does so when the first message is sent.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Generator

import openai

from agent.chat import ChatEvent, ChatSession, TokenSaid, ToolAnswered, ToolCalled
from agent.tools import ToolOutage
from dashboard.chats import ChatFailed
from dashboard.dialogue import error_badge
from dashboard.text import escape, mono, prose, soft, tidy_json
from env_sim.simulator import Simulator
from store.database import Log, LogError
from store.records import Scenario, TurnRecord
from store.turns import get_turns
from store.vocabulary import ToolSource


class Conversation:
    """One open chat. Used by one script run at a time; `close()` it when done. Raises LogError for an unknown id."""

    def __init__(self, log: Log, gateway_url: str, session_id: str, scenario: Scenario) -> None:
        self.id = session_id
        self._loop = asyncio.new_event_loop()
        simulator = Simulator(scenario, scenario.seed)
        self._loop.run_until_complete(_play_again(simulator, get_turns(log, session_id)))
        self._session = ChatSession(
            gateway_url,
            log,
            scenario.tools,
            simulator.answer,
            session=session_id,
            system=scenario.system,
        )

    def say(self, text: str) -> Generator[ChatEvent, None, None]:
        """One user turn, event by event; closing the iterator stops it. Raises ChatFailed: it can be said again."""
        events = self._session.say(text)
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(_next(events))
                except StopAsyncIteration:
                    return
                except (openai.APIError, ToolOutage, LogError) as error:
                    raise ChatFailed(f"{type(error).__name__}: {error}") from error
        finally:
            self._loop.run_until_complete(events.aclose())  # type: ignore[attr-defined]

    def close(self) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()


class ReplyInProgress:
    """What the agent has done so far in the turn that is being said: text, calls and answers in their order."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._text = ""

    def add(self, event: ChatEvent) -> None:
        if isinstance(event, TokenSaid):
            self._text += event.text
            return
        if self._text:
            self._parts.append(prose(self._text))
            self._text = ""
        if isinstance(event, ToolCalled):
            malformed = isinstance(event.arguments, str)
            shown = event.arguments if malformed else json.dumps(event.arguments, ensure_ascii=False)
            called = f'<span class="cl-call">{escape(event.name)}</span>'
            self._parts.append(f'{called}<div class="cl-block">{mono(tidy_json(str(shown)))}</div>')
        elif isinstance(event, ToolAnswered):
            label = (
                f'<div class="cl-row">{error_badge() if event.is_error else ""}{soft(event.name + " answered")}</div>'
            )
            self._parts.append(f'<div class="cl-block">{label}{mono(tidy_json(event.text))}</div>')

    def html(self) -> str:
        """The turn so far; never empty, so that something is seen before the first token."""
        parts = [*self._parts, prose(self._text) if self._text else soft("…")]
        sections = "".join(f"<section>{part}</section>" for part in parts)
        return f'<div class="cl"><div class="cl-step">{sections}</div></div>'


async def _next(events: AsyncIterator[ChatEvent]) -> ChatEvent:
    return await anext(events)


async def _play_again(simulator: Simulator, turns: list[TurnRecord]) -> None:
    """Brings a fresh world to where the dialogue left it. Refused calls changed nothing in it."""
    for turn in turns:
        for step in turn.steps:
            for call in step.calls:
                if call.arguments is not None and call.source in (ToolSource.WORLD, ToolSource.RECORDED):
                    await simulator.answer(call.name, dict(call.arguments), call.call_id)
