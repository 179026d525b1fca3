"""A chat with the agent, for any front end: the graph against the gateway, streamed, its state in the log's database.

Writes the chat's trajectory (origin chat), the answers of its tools, and LangGraph's checkpoints; the gateway records
the steps. The chat's id is the trajectory's and the gateway's session. A chat has no end in the log: whoever knows its
id can go on with it, as the log says it stands. Checkpoints add what the log cannot say: that a turn waits for a
person, or that it ended without a reply (agent/checkpoints.py).
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import openai
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from agent.approval import Decision, WaitingCall, as_resume
from agent.chat_history import NOTHING_SAID, LoggedDialogue, before_turn, dialogue_of, same_dialogue, turns_in
from agent.checkpoints import clear_errors, keep_newest, open_checkpoints
from agent.graph import build_graph
from agent.policy import connect_policy, open_connections
from agent.tools import Answer, make_tools
from store.chats import ChatSetup, chat_answers, chat_steps, create_chat
from store.database import Log
from store.records import ToolSpec
from store.trajectories import ToolAnswer, get_trajectory, record_tool_answers
from store.vocabulary import StopReason


@dataclass(frozen=True)
class TokenSaid:
    """A piece of what the policy says, as it is sampled."""

    text: str


@dataclass(frozen=True)
class ToolCalled:
    name: str
    arguments: dict[str, Any] | str
    """The text as sampled where it is no JSON."""
    call_id: str


@dataclass(frozen=True)
class ToolAnswered:
    name: str
    text: str
    is_error: bool
    call_id: str
    source: str | None
    """Who answered (`store.vocabulary.ToolSource`)."""
    latency_ms: float | None


@dataclass(frozen=True)
class ApprovalAsked:
    """The turn waits: none of its newest calls runs before a person has decided on these (`ChatSession.decide`)."""

    calls: tuple[WaitingCall, ...]


@dataclass(frozen=True)
class TurnEnded:
    stop_reason: StopReason | None
    """None: with a reply."""


ChatEvent = TokenSaid | ToolCalled | ToolAnswered | ApprovalAsked | TurnEnded


@dataclass(frozen=True)
class Equipment:
    """What the agent of a chat works with."""

    specs: Sequence[ToolSpec]
    answer: Answer
    """Stands behind all of them: real tools, or a simulated world."""
    ask_first: Collection[str] = ()
    """The tools whose calls wait for a person."""
    system: str = ""
    setup: ChatSetup | None = None
    """How the chat gets this equipment again; kept with a new one, like `seed`."""
    seed: int | None = None


class NothingWaits(RuntimeError):
    """There is no call to decide on: it was decided elsewhere, or the chat has gone on."""


class ChatSession:
    """One dialogue with the agent.

    `session` None starts a new one; the id of one in the log goes on with it. Raises LogError for an unknown session.
    `close()` it when done. `http_client` replaces the connection to the gateway (tests).
    """

    def __init__(
        self,
        gateway_url: str,
        log: Log,
        equipment: Equipment,
        *,
        session: str | None = None,
        model: str = "policy",
        version: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_steps: int = 12,
        http_client: openai.DefaultAsyncHttpxClient | None = None,
    ) -> None:
        self.log = log
        self.id = session or f"chat-{secrets.token_hex(8)}"
        self.waiting: tuple[WaitingCall, ...] = ()
        """The calls that the last turn waits for, once the session is open."""
        if session is None:
            create_chat(log, self.id, equipment.setup, version=version, seed=equipment.seed)
        else:
            get_trajectory(log, session)
        self._answer = equipment.answer
        self._ask_first = frozenset(equipment.ask_first)
        self._opening: list[AnyMessage] = [SystemMessage(equipment.system)] if equipment.system else []
        self._messages: list[AnyMessage] = []
        self._answers: dict[str, ToolAnswer] = {}
        self._connections = http_client or open_connections()
        self._owns_connections = http_client is None
        self._policy = connect_policy(
            gateway_url, self.id, self._connections, model=model, temperature=temperature, max_tokens=max_tokens
        )
        self._tools = make_tools(equipment.specs, self._answer_recorded)
        self._config = RunnableConfig(configurable={"thread_id": self.id, "max_steps": max_steps})
        self._resources = AsyncExitStack()
        self._saver: BaseCheckpointSaver[str] | None = None
        self._graph: CompiledStateGraph[Any, Any, Any, Any] | None = None

    @property
    def turns(self) -> int:
        """How many turns have been said, one that waits included; once the session is open."""
        return len(turns_in(self._messages))

    async def open(self) -> None:
        """Brings the session to where the log stands. `say` and `decide` do so themselves. Raises LogError."""
        if self._graph is not None:
            return
        self._saver = await self._resources.enter_async_context(open_checkpoints(self.log))
        self._graph = build_graph(
            self._policy, self._tools, self._saver, ask_first=self._ask_first, on_refusal=self._record
        )
        logged = await asyncio.to_thread(self._read_log)
        with clear_errors(self.log):
            state = await self._graph.aget_state(self._config)
            kept: list[AnyMessage] = state.values.get("messages", [])
            as_logged = same_dialogue(kept, logged.said)
            if as_logged and (state.interrupts or not state.next):
                self._messages = kept
                self.waiting = _waiting_calls(kept, self._ask_first) if state.interrupts else ()
            elif logged.newest_unanswered and (calls := _waiting_calls(logged.said, self._ask_first)):
                await self._bring_to(logged.said, anew=True)
                self.waiting = calls
            else:
                await self._bring_to(logged.finished, anew=bool(state.next) or not same_dialogue(kept, logged.finished))

    async def say(self, text: str, *, turn: int | None = None) -> AsyncGenerator[ChatEvent, None]:
        """One user turn. Raises openai.APIError (the gateway), ToolOutage (the tools) and LogError.

        With `turn`, said in the place of that turn and of all after it: a fork in the log. After an error or a
        cancellation the session stands where it stood before, and the turn can be said again; the log keeps its steps.
        """
        await self.open()
        base = self._messages if turn is None else before_turn(self._messages, turn)
        if turn is None and self.waiting:
            base = before_turn(self._messages, self.turns - 1)
        self.waiting = ()
        await self._bring_to(base, anew=not same_dialogue(self._messages, base))
        opening = [] if turns_in(base) else base or self._opening
        given = {"messages": [*opening, HumanMessage(text)], "stop_reason": None}
        async with aclosing(self._run(given)) as events:
            async for event in events:
                yield event

    async def decide(self, decisions: Mapping[str, Decision]) -> AsyncGenerator[ChatEvent, None]:
        """Goes on with a turn that waits; `decisions` by call id. Raises NothingWaits, and what `say` raises."""
        await self.open()
        if not self.waiting:
            raise NothingWaits("no call of this chat waits for a decision: it was decided, or the chat has gone on")
        self.waiting = ()
        async with aclosing(self._run(Command(resume=as_resume(decisions)))) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        await self._resources.aclose()
        self._graph = None
        if self._owns_connections:
            await self._connections.aclose()

    async def _run(self, given: Any) -> AsyncGenerator[ChatEvent, None]:
        assert self._graph is not None and self._saver is not None
        # A turn that fails while it goes on from a person's decision is given up as a whole.
        base = before_turn(self._messages, self.turns - 1) if isinstance(given, Command) else self._messages
        stop_reason: str | None = None
        over = False
        try:
            with clear_errors(self.log):
                # "exit": one checkpoint when the turn ends or waits, not one for every step.
                stream: Any = self._graph.astream(
                    given, self._config, stream_mode=["messages", "updates"], durability="exit"
                )
                async with aclosing(stream) as updates:
                    async for mode, event in updates:
                        if mode == "messages":
                            chunk, _ = event
                            if isinstance(chunk, AIMessageChunk) and chunk.text:
                                yield TokenSaid(chunk.text)
                            continue
                        for node, update in event.items():
                            if node != "__interrupt__":
                                stop_reason = update.get("stop_reason")
                                for said in self._events_of(update["messages"]):
                                    yield said
                state = await self._graph.aget_state(self._config)
                self._messages = state.values["messages"]
                await keep_newest(self._saver, self.id)
                over = True
        finally:
            if not over:
                await self._bring_to(base, anew=True)
        self.waiting = _waiting_calls(self._messages, self._ask_first) if state.interrupts else ()
        yield (
            ApprovalAsked(self.waiting) if self.waiting else TurnEnded(StopReason(stop_reason) if stop_reason else None)
        )

    async def _bring_to(self, messages: list[AnyMessage], *, anew: bool) -> None:
        """Sets the session to `messages`; `anew`: the checkpoint is not there yet. They end a turn, or calls wait."""
        assert self._graph is not None and self._saver is not None
        self._messages = messages
        if not anew:
            return
        with clear_errors(self.log):
            await self._saver.adelete_thread(self.id)
            if turns_in(messages):
                after_tools = isinstance(messages[-1], ToolMessage)
                stop_reason = StopReason.MAX_STEPS.value if after_tools else None
                state = {"messages": messages, "stop_reason": stop_reason}
                await self._graph.aupdate_state(self._config, state, "tools" if after_tools else "model")

    def _read_log(self) -> LoggedDialogue:
        steps = chat_steps(self.log, self.id)
        return dialogue_of(steps, chat_answers(self.log, self.id)) if steps else NOTHING_SAID

    async def _answer_recorded(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        started = time.perf_counter()
        answer = await self._answer(name, arguments, call_id)
        if answer.latency_ms is None:
            took = (time.perf_counter() - started) * 1000
            answer = ToolAnswer(answer.call_id, answer.response, answer.is_error, answer.source, took)
        await self._record(answer)
        return answer

    async def _record(self, answer: ToolAnswer) -> None:
        self._answers[answer.call_id] = answer
        await asyncio.to_thread(record_tool_answers, self.log, self.id, [answer])

    def _events_of(self, messages: Sequence[AnyMessage]) -> Iterator[ChatEvent]:
        for message in messages:
            if isinstance(message, AIMessage):
                for call in message.tool_calls:
                    yield ToolCalled(call["name"], call["args"], call["id"] or "")
                for broken in message.invalid_tool_calls:
                    yield ToolCalled(broken["name"] or "?", broken["args"] or "", broken["id"] or "")
            elif isinstance(message, ToolMessage):
                recorded = self._answers.get(message.tool_call_id)
                yield ToolAnswered(
                    message.name or "?",
                    message.text,
                    message.status == "error",
                    message.tool_call_id,
                    recorded.source if recorded else None,
                    recorded.latency_ms if recorded else None,
                )


def _waiting_calls(messages: Sequence[AnyMessage], ask_first: frozenset[str]) -> tuple[WaitingCall, ...]:
    """The calls of the last message that a person decides on."""
    last = messages[-1] if messages else None
    calls = last.tool_calls if isinstance(last, AIMessage) else []
    return tuple(WaitingCall(c["id"] or "", c["name"], c["args"]) for c in calls if c["name"] in ask_first)
