"""The turns that are being said right now, of all browser windows: one event loop in a thread of the dashboard.

A page only looks at a running turn. So it survives a reload, two windows see the same one, and only the stop button
stops it. Writes the log through `agent.chat.ChatSession`, which is opened for a turn and closed after it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from dashboard.chat_turns import Part
from dashboard.chats import stored_setup
from store.database import Log
from store.settings import Settings

if TYPE_CHECKING:
    from agent.approval import Decision
    from agent.chat import ChatEvent

logger = logging.getLogger(__name__)


class TurnState(StrEnum):
    RUNNING = "running"
    ENDED = "ended"
    WAITING = "waiting"
    """For a person's decision."""
    STOPPED = "stopped"
    FAILED = "failed"


class ChatFailed(RuntimeError):
    """A turn cannot be said now. Says why."""


class RunningTurn:
    """One turn, or the rest of one that a person has decided about. Written by the loop's thread, read by pages."""

    def __init__(self, chat_id: str, index: int, text: str) -> None:
        self.chat_id = chat_id
        self.index = index
        """Of the turn in its dialogue; certain once the chat is open."""
        self.instead = False
        self.begun: Sequence[Part] = ()
        """What the agent did in it before a person was asked."""
        self.text = text
        self.events: list[ChatEvent] = []
        self.state = TurnState.RUNNING
        self.problem = ""
        self.started = time.monotonic()
        self._over = threading.Event()
        self._cancel = threading.Event()
        self._task: asyncio.Task[bool] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Stops it soon; what was said stays in the log. A turn that is over stays as it is."""
        self._cancel.set()
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def wait(self, seconds: float) -> bool:
        """Waits until it is over, at most so long; whether it is."""
        return self._over.wait(seconds)


class LiveChats:
    """The running turn of each chat, and the newest one of each that was stopped or failed."""

    def __init__(self) -> None:
        self._turns: dict[str, RunningTurn] = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._connections: Any = None
        self._llms: dict[str, Any] = {}
        threading.Thread(target=self._loop.run_forever, name="live-chats", daemon=True).start()

    def turn_of(self, chat_id: str) -> RunningTurn | None:
        with self._lock:
            return self._turns.get(chat_id)

    def forget(self, chat_id: str) -> None:
        """Drops what is kept of a turn that is over."""
        with self._lock:
            turn = self._turns.get(chat_id)
            if turn is not None and turn.state is not TurnState.RUNNING:
                del self._turns[chat_id]

    def say(
        self, log: Log, settings: Settings, chat_id: str, text: str, index: int, *, instead: bool = False
    ) -> RunningTurn:
        """Says `text` as the chat's next turn, which is probably number `index`; with `instead`, in the place of that
        turn and all after it. Raises ChatFailed while another turn of the chat runs."""
        turn = RunningTurn(chat_id, index, text)
        turn.instead = instead
        return self._start(log, settings, turn, None)

    def decide(
        self,
        log: Log,
        settings: Settings,
        chat_id: str,
        decisions: Mapping[str, "Decision"],
        text: str,
        index: int,
        begun: Sequence[Part],
    ) -> RunningTurn:
        """Goes on with turn `index`, in which the user said `text`, the agent did `begun`, and which waits.

        Raises ChatFailed as `say` does.
        """
        turn = RunningTurn(chat_id, index, text)
        turn.begun = begun
        return self._start(log, settings, turn, decisions)

    def _start(
        self, log: Log, settings: Settings, turn: RunningTurn, decisions: Mapping[str, "Decision"] | None
    ) -> RunningTurn:
        with self._lock:
            before = self._turns.get(turn.chat_id)
            if before is not None and before.state is TurnState.RUNNING:
                raise ChatFailed("the agent is still answering in this chat: wait for it, or stop it")
            self._turns[turn.chat_id] = turn
        asyncio.run_coroutine_threadsafe(self._watch(log, settings, turn, decisions), self._loop)
        return turn

    async def _watch(
        self, log: Log, settings: Settings, turn: RunningTurn, decisions: Mapping[str, "Decision"] | None
    ) -> None:
        turn._loop = self._loop
        turn._task = asyncio.ensure_future(self._run(log, settings, turn, decisions))
        if turn._cancel.is_set():
            turn._task.cancel()
        try:
            ended = TurnState.WAITING if await turn._task else TurnState.ENDED
        except asyncio.CancelledError:
            ended = TurnState.STOPPED
        except Exception as error:  # the boundary of a turn: said on the page, and whole in the dashboard's log
            logger.warning("chat %s, turn %s: %s", turn.chat_id, turn.index, error, exc_info=error)
            turn.problem, ended = f"{type(error).__name__}: {error}", TurnState.FAILED
        turn.state = ended
        turn._over.set()

    async def _run(
        self, log: Log, settings: Settings, turn: RunningTurn, decisions: Mapping[str, "Decision"] | None
    ) -> bool:
        """Whether the turn waits for a person."""
        # LangGraph and the OpenAI client: seconds, which only a dashboard that is chatted in spends.
        from agent.chat import ApprovalAsked, ChatSession
        from agent.policy import open_connections
        from dashboard.equipment import equip

        if self._connections is None:
            self._connections = open_connections(settings.gateway.request_timeout_s)
        setup, seed = await asyncio.to_thread(stored_setup, log, turn.chat_id)
        equipment = equip(log, turn.chat_id, setup, seed, self._llm(settings))
        session = ChatSession(settings.gateway_url, log, equipment, session=turn.chat_id, http_client=self._connections)
        try:
            await session.open()
            if decisions is not None:
                events = session.decide(decisions)
            elif turn.instead:
                events = session.say(turn.text, turn=min(turn.index, session.turns))
            else:
                turn.index = session.turns - bool(session.waiting)
                events = session.say(turn.text)
            async with aclosing(events) as stream:
                async for event in stream:
                    turn.events.append(event)
            return bool(turn.events) and isinstance(turn.events[-1], ApprovalAsked)
        finally:
            await session.close()

    def _llm(self, settings: Settings) -> Any:
        from dashboard.equipment import make_llm

        key = settings.simulator.model_dump_json() if settings.simulator else ""
        if key not in self._llms:
            self._llms[key] = make_llm(settings)
        return self._llms[key]


@cache
def live_chats() -> LiveChats:
    """Those of this process."""
    return LiveChats()
