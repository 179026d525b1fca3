"""Chat sessions in the terminal: the graph against the gateway, streamed, tool calls shown.

Writes the session's trajectory (origin chat) and the answers of its tools; the gateway records the steps. The session
id is the trajectory id. A chat has no end in the log: whoever knows its id can go on with it.
"""

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import openai
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph
from rich.console import Console
from rich.markup import escape

from agent.chat_history import messages_of
from agent.graph import build_graph
from agent.policy import connect_policy, open_connections
from agent.tools import Answer, ToolOutage, make_tools
from store.conversations import stored_steps
from store.database import Log
from store.records import ToolSpec
from store.trajectories import NewTrajectory, ToolAnswer, create_trajectories, get_trajectory, record_tool_answers
from store.vocabulary import Origin, StopReason

HELP = "/new starts a session, /tools lists the tools, /quit leaves; Ctrl-C stops an answer"


@dataclass(frozen=True)
class TokenSaid:
    """A piece of what the policy says, as it is sampled."""

    text: str


@dataclass(frozen=True)
class ToolCalled:
    name: str
    arguments: dict[str, Any] | str
    """The text as sampled where it is no JSON."""


@dataclass(frozen=True)
class ToolAnswered:
    name: str
    text: str
    is_error: bool


@dataclass(frozen=True)
class TurnEnded:
    stop_reason: StopReason | None
    """None: with a reply."""


ChatEvent = TokenSaid | ToolCalled | ToolAnswered | TurnEnded


class ChatSession:
    """One dialogue with the agent, for any front end (terminal, dashboard).

    `session` None starts a new one; the id of one in the log goes on with it. Raises LogError for an unknown session.
    `close()` it when done. `http_client` replaces the connection to the gateway (tests).
    """

    def __init__(
        self,
        gateway_url: str,
        log: Log,
        specs: Sequence[ToolSpec],
        answer: Answer,
        *,
        session: str | None = None,
        system: str = "",
        model: str = "policy",
        version: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_steps: int = 12,
        http_client: openai.DefaultAsyncHttpxClient | None = None,
    ) -> None:
        self.log = log
        self.id = session or f"chat-{secrets.token_hex(8)}"
        self._answer = answer
        self._messages: list[AnyMessage] = [SystemMessage(system)] if system else []
        if session is None:
            create_trajectories(log, [NewTrajectory(id=self.id, origin=Origin.CHAT, version=version)])
        else:
            get_trajectory(log, session)
            self._messages = messages_of(stored_steps(log, session)) or self._messages
        self._connections = http_client or open_connections()
        self._owns_connections = http_client is None
        policy = connect_policy(
            gateway_url, self.id, self._connections, model=model, temperature=temperature, max_tokens=max_tokens
        )
        tools: list[BaseTool] = make_tools(specs, self._answer_recorded)
        self._graph: CompiledStateGraph[Any, Any, Any, Any] = build_graph(policy, tools, on_refusal=self._record)
        self._config: RunnableConfig = {"configurable": {"max_steps": max_steps}}

    async def say(self, text: str) -> AsyncGenerator[ChatEvent, None]:
        """One user turn. Raises openai.APIError (the gateway) and ToolOutage (the tools); the turn can be said again.

        After an error or a cancellation the session stands where it stood before the turn; the log keeps its steps.
        """
        messages: list[AnyMessage] = [*self._messages, HumanMessage(text)]
        stop_reason: str | None = None
        stream: AsyncIterator[Any] = self._graph.astream(
            {"messages": messages}, self._config, stream_mode=["messages", "updates"]
        )
        async for mode, event in stream:
            if mode == "messages":
                chunk, _ = event
                if isinstance(chunk, AIMessageChunk) and chunk.text:
                    yield TokenSaid(chunk.text)
                continue
            for update in event.values():
                stop_reason = update.get("stop_reason")
                messages += update["messages"]
                for said in _events_of(update["messages"]):
                    yield said
        self._messages = messages
        yield TurnEnded(StopReason(stop_reason) if stop_reason else None)

    async def close(self) -> None:
        if self._owns_connections:
            await self._connections.aclose()

    async def _answer_recorded(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        answer = await self._answer(name, arguments, call_id)
        await self._record(answer)
        return answer

    async def _record(self, answer: ToolAnswer) -> None:
        await asyncio.to_thread(record_tool_answers, self.log, self.id, [answer])


async def run_chat(
    gateway_url: str,
    log: Log,
    specs: Sequence[ToolSpec],
    answer: Answer,
    *,
    session: str | None = None,
    system: str = "",
    model: str = "policy",
    temperature: float = 0.0,
    max_tokens: int = 512,
    console: Console | None = None,
    read_line: Callable[[], Awaitable[str]] | None = None,
    http_client: openai.DefaultAsyncHttpxClient | None = None,
) -> None:
    """Chat in the terminal until /quit or the end of input. Raises LogError for an unknown `session`.

    `answer` stands behind the tools (real ones, or a simulated world); `read_line` and `console` replace the terminal.
    """
    out = console or Console(highlight=False)
    read = read_line or _line_reader()

    def start(session_id: str | None) -> ChatSession:
        chat = ChatSession(
            gateway_url,
            log,
            specs,
            answer,
            session=session_id,
            system=system,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            http_client=http_client,
        )
        out.print(f"[dim]session {chat.id} · {HELP}[/dim]")
        return chat

    chat = start(session)
    try:
        while True:
            try:
                line = (await read()).strip()
            except EOFError:
                return
            if line == "/quit":
                return
            if line == "/new":
                await chat.close()
                chat = start(None)
            elif line == "/tools":
                for spec in specs:
                    out.print(f"[bold]{spec.name}[/bold]  {escape(spec.description)}")
            elif line.startswith("/"):
                out.print(f"[dim]unknown command {escape(line.split()[0])}: {HELP}[/dim]")
            elif line:
                await _show_turn(chat, line, out)
    finally:
        await chat.close()


def _events_of(messages: Sequence[AnyMessage]) -> Iterator[ChatEvent]:
    for message in messages:
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                yield ToolCalled(call["name"], call["args"])
            for broken in message.invalid_tool_calls:
                yield ToolCalled(broken["name"] or "?", broken["args"] or "")
        elif isinstance(message, ToolMessage):
            yield ToolAnswered(message.name or "?", message.text, message.status == "error")


async def _show_turn(chat: ChatSession, text: str, out: Console) -> None:
    turn = asyncio.ensure_future(_print_events(chat, text, out))
    with _interrupt_cancels(turn):
        try:
            await turn
        except asyncio.CancelledError:
            # Ctrl-C stops this answer only; when the chat itself is cancelled, that goes on.
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
            out.print("\n[yellow]stopped[/yellow]")
        except openai.APIError as error:
            out.print(f"\n[red]the gateway did not answer:[/red] {escape(str(error))}")
        except ToolOutage as error:
            out.print(f"\n[red]a tool is out of order:[/red] {escape(str(error))}")


async def _print_events(chat: ChatSession, text: str, out: Console) -> None:
    in_line = False
    async for event in chat.say(text):
        if isinstance(event, TokenSaid):
            out.print(escape(event.text), end="", soft_wrap=True)
            in_line = True
            continue
        if in_line:
            out.print()
            in_line = False
        if isinstance(event, ToolCalled):
            out.print(f"[cyan]→ {escape(event.name)}[/cyan] {escape(_arguments_text(event.arguments))}", soft_wrap=True)
        elif isinstance(event, ToolAnswered):
            color = "red" if event.is_error else "green"
            out.print(f"[{color}]← {escape(event.text)}[/{color}]", soft_wrap=True)
        elif event.stop_reason is not None:
            out.print(f"[yellow]stopped: {event.stop_reason}[/yellow]")


def _arguments_text(arguments: dict[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


@contextlib.contextmanager
def _interrupt_cancels(turn: "asyncio.Future[None]") -> Iterator[None]:
    """Ctrl-C cancels `turn` while it lasts. Where the loop takes no signal handlers, Ctrl-C ends the chat."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    try:
        loop.add_signal_handler(signal.SIGINT, turn.cancel)
    except (NotImplementedError, RuntimeError, ValueError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def _line_reader() -> Callable[[], Awaitable[str]]:
    """Reads lines of the standard input without a thread that would outlive Ctrl-C at the prompt."""

    async def read() -> str:
        if sys.stdin.isatty():
            print("you › ", end="", flush=True)
            loop = asyncio.get_running_loop()
            readable = asyncio.Event()
            loop.add_reader(sys.stdin.fileno(), readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(sys.stdin.fileno())
            line = sys.stdin.readline()
        else:
            line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            raise EOFError
        return line

    return read
