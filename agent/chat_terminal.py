"""`checkloop chat`: a chat in the terminal, streamed, with its tool calls folded to a line each.

Reads and writes the log through `agent.chat.ChatSession`; ratings are rows beside the verdicts.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.approval import Decision, WaitingCall
from agent.chat import ApprovalAsked, ChatEvent, ChatSession, Equipment, TokenSaid, ToolAnswered, ToolCalled, TurnEnded
from agent.tools import ToolOutage
from store.access import machine_user
from store.chats import chat_steps, list_chats
from store.database import Log, LogError
from store.ratings import THUMB_VALUES, Thumb, rate_turn
from store.turns import get_turns
from store.versions import live_version

ReadLine = Callable[[str], Awaitable[str]]
"""read_line(prompt): the next line typed. Raises EOFError at the end of input."""

Equip = Callable[[str | None], Awaitable[Equipment]]
"""What the agent of a chat (by its id; None: of a new one) works with. LogError where this cannot be had again."""

COMMANDS: Mapping[str, str] = {
    "/new": "starts a new chat",
    "/resume [id]": "goes on with a chat; without an id, lists the newest",
    "/again [text]": "says the last turn anew, in other words if some are given; the log keeps both",
    "/rate up|down|none [comment]": "says what the last turn was worth; none takes that back",
    "/show [number]": "shows a call or result whole, without a number all of the last turn",
    "/tools": "lists the tools",
    "/version": "says which version answers",
    "/quit": "leaves; so does Ctrl-D. Ctrl-C stops an answer",
}
LISTED = 10


@dataclass
class Terminal:
    """One run of `checkloop chat`: the open chat and what was folded in its last turn."""

    gateway_url: str
    log: Log
    equip: Equip
    out: Console
    read: ReadLine
    max_tokens: int
    model: str = "policy"
    http_client: openai.DefaultAsyncHttpxClient | None = None
    equipment: Equipment = field(init=False)
    chat: ChatSession = field(init=False)
    folded: list[tuple[str, str]] = field(default_factory=list)
    """(heading, text) of every call and result of the last turn."""

    async def run(self, session: str | None) -> None:
        await self.start(session)
        try:
            with contextlib.suppress(EOFError):
                if self.chat.waiting:
                    await self.show_turn(self.decide())
                while (line := (await self.read("you › ")).strip()) != "/quit":
                    if line.startswith("/"):
                        await self.obey(line)
                    elif line:
                        await self.show_turn(self.say(line))
        finally:
            await self.chat.close()

    async def start(self, session: str | None) -> None:
        """Opens a chat in the place of the one that is open. Raises LogError, with that one left open."""
        equipment = await self.equip(session)
        version = live_version(self.log)
        opened = ChatSession(
            self.gateway_url,
            self.log,
            equipment,
            session=session,
            version=version.name if version else None,
            model=self.model,
            max_tokens=self.max_tokens,
            http_client=self.http_client,
        )
        await opened.open()
        if hasattr(self, "chat"):
            await self.chat.close()
        self.chat, self.equipment, self.folded = opened, equipment, []
        said = f" · turns so far: {opened.turns}" if opened.turns else ""
        self.out.print(f"[dim]chat {opened.id}{said} · /help lists the commands[/dim]")
        if session:
            for turn in get_turns(self.log, session)[-2:]:
                self.out.print(f"[dim]you › {escape(turn.user)}[/dim]", soft_wrap=True)
                self.out.print(f"[dim]{escape(turn.reply or '(no reply)')}[/dim]", soft_wrap=True)

    async def obey(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        try:
            if command == "/new":
                await self.start(None)
            elif command == "/resume" and not rest:
                self.list_chats()
            elif command == "/resume":
                await self.start(self.chosen(rest))
                if self.chat.waiting:
                    await self.show_turn(self.decide())
            elif command == "/again":
                await self.say_again(rest)
            elif command == "/rate":
                self.rate(rest)
            elif command == "/show":
                self.show_whole(rest)
            elif command == "/tools":
                self.list_tools()
            elif command == "/version":
                self.say_version()
            elif command == "/help":
                for name, meaning in COMMANDS.items():
                    self.out.print(f"[bold]{escape(name)}[/bold]  {meaning}")
            else:
                self.out.print(f"[dim]unknown command {escape(command)}: /help lists them[/dim]")
        except LogError as error:
            self.out.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)

    async def say(self, text: str, turn: int | None = None) -> None:
        asked = await self.print_events(self.chat.say(text, turn=turn))
        if asked:
            await self.decide()

    async def say_again(self, text: str) -> None:
        if not self.chat.turns:
            raise LogError("nothing was said yet that could be said anew")
        last = self.chat.turns - 1
        said = text or get_turns(self.log, self.chat.id)[last].user
        await self.show_turn(self.say(said, turn=last))

    async def decide(self) -> None:
        """Asks the person about the calls that wait, until the turn has ended."""
        while self.chat.waiting:
            decisions = {call.call_id: await self.ask_about(call) for call in self.chat.waiting}
            await self.print_events(self.chat.decide(decisions))

    async def ask_about(self, call: WaitingCall) -> Decision:
        self.out.print(f"[yellow]?[/yellow] [bold]{escape(call.name)}[/bold] {escape(_call_text(call.arguments))}")
        said = (await self.read("run it? y, or why not › ")).strip()
        if said.lower() in ("y", "yes"):
            return Decision(True)
        return Decision(False, "" if said.lower() in ("n", "no") else said)

    def list_chats(self) -> None:
        chats = list_chats(self.log, limit=LISTED)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("chat", "started", "turns", "begins"):
            table.add_column(name, overflow="ellipsis", no_wrap=True)
        for one in chats:
            name = escape(one.title or one.opening or "–")
            table.add_row(one.id, f"{one.created_at:%Y-%m-%d %H:%M}", str(one.turns), name)
        self.out.print(table if chats else "[dim]no chat yet[/dim]")
        if chats:
            self.out.print("[dim]/resume with an id, or the beginning of one, goes on with it[/dim]")

    def chosen(self, beginning: str) -> str:
        """The chat whose id begins so; an id that is not among the newest must be whole."""
        matches = [one.id for one in list_chats(self.log, limit=500) if one.id.startswith(beginning)]
        if len(matches) > 1 and beginning not in matches:
            raise LogError(f"{len(matches)} chats begin with {beginning!r}: {', '.join(matches[:5])}")
        return beginning if beginning in matches or not matches else matches[0]

    def rate(self, said: str) -> None:
        thumb, _, comment = said.partition(" ")
        if thumb not in set(Thumb):
            raise LogError("say /rate up or /rate down, and a comment if there is one; /rate none takes it back")
        turns = get_turns(self.log, self.chat.id)
        if not turns:
            raise LogError("nothing was said yet that could be rated")
        turn = turns[-1].index
        value = THUMB_VALUES[Thumb(thumb)]
        rate_turn(self.log, self.chat.id, turn, value, comment=comment.strip() or None, person=machine_user())
        self.out.print(f"[dim]turn {turn + 1} rated {thumb}[/dim]")

    def show_whole(self, number: str) -> None:
        if not self.folded:
            self.out.print("[dim]the last turn called no tool[/dim]")
        for place, (heading, text) in enumerate(self.folded, start=1):
            if not number or number == str(place):
                self.out.print(f"[bold]{place} {escape(heading)}[/bold]\n{escape(text)}", soft_wrap=True)

    def list_tools(self) -> None:
        for spec in self.equipment.specs:
            asked = " [yellow](asks first)[/yellow]" if spec.name in self.equipment.ask_first else ""
            self.out.print(f"[bold]{spec.name}[/bold]  {escape(spec.description)}{asked}")

    def say_version(self) -> None:
        live = live_version(self.log)
        steps = chat_steps(self.log, self.chat.id)
        self.out.print(
            f"live: {live.name if live else 'none'}" + (f" · last answer: {steps[-1].version}" if steps else "")
        )

    async def show_turn(self, turn: Any) -> None:
        """Runs one turn; what goes wrong in it is said, and the chat goes on."""
        task = asyncio.ensure_future(turn)
        with _interrupt_cancels(task):
            try:
                await task
            except asyncio.CancelledError:
                # Ctrl-C stops this answer only; when the chat itself is cancelled, that goes on.
                if (this := asyncio.current_task()) is not None and this.cancelling():
                    raise
                self.out.print("\n[yellow]stopped; say it again, or something else[/yellow]")
            except openai.APIError as error:
                self.out.print(f"\n[red]the gateway did not answer:[/red] {escape(str(error))}")
            except ToolOutage as error:
                self.out.print(f"\n[red]a tool is out of order:[/red] {escape(str(error))}")
            except LogError as error:
                self.out.print(f"\n[red]the log is out of order:[/red] {escape(str(error))}")

    async def print_events(self, events: Any) -> bool:
        """Prints a turn as it happens; returns whether it waits for a person."""
        in_line = False
        if not self.chat.waiting:
            self.folded = []
        async with contextlib.aclosing(events) as stream:
            async for event in stream:
                if isinstance(event, TokenSaid):
                    self.out.print(escape(event.text), end="", soft_wrap=True)
                    in_line = True
                    continue
                if in_line:
                    self.out.print()
                    in_line = False
                if isinstance(event, ApprovalAsked):
                    return True
                self.print_folded(event)
        return False

    def print_folded(self, event: ChatEvent) -> None:
        if isinstance(event, ToolCalled):
            self.fold("→", "cyan", event.name, _call_text(event.arguments), _tidy(event.arguments))
        elif isinstance(event, ToolAnswered):
            took = f" ({event.latency_ms:,.0f} ms)" if event.latency_ms is not None else ""
            self.fold("←", "red" if event.is_error else "green", event.name + took, event.text, _tidy(event.text))
        elif isinstance(event, TurnEnded) and event.stop_reason is not None:
            self.out.print(f"[yellow]stopped: {event.stop_reason}[/yellow]")

    def fold(self, sign: str, color: str, name: str, text: str, whole: str) -> None:
        """One line of the terminal's width; what does not fit is counted."""
        self.folded.append((f"{sign} {name}", whole))
        number = len(self.folded)
        line = " ".join(text.split())
        room = max(20, self.out.width - len(name) - 24)
        rest = f" … [dim]/show {number}[/dim]" if len(line) > room else ""
        self.out.print(f"[{color}]{sign} {escape(name)}[/{color}] {escape(line[:room])}{rest}", soft_wrap=True)


async def run_chat(
    gateway_url: str,
    log: Log,
    equip: Equip,
    *,
    session: str | None = None,
    model: str = "policy",
    max_tokens: int = 512,
    console: Console | None = None,
    read_line: ReadLine | None = None,
    http_client: openai.DefaultAsyncHttpxClient | None = None,
) -> None:
    """Chat in the terminal until /quit or the end of input. Raises LogError for an unknown `session`.

    `read_line` and `console` replace the terminal.
    """
    out = console or Console(highlight=False)
    terminal = Terminal(gateway_url, log, equip, out, read_line or _line_reader(), max_tokens, model, http_client)
    await terminal.run(session)


def _call_text(arguments: dict[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _tidy(value: dict[str, Any] | str) -> str:
    """JSON indented; text that is none as it is."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return str(value)
    return json.dumps(parsed, indent=2, ensure_ascii=False)


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


def _line_reader() -> ReadLine:
    """Reads lines of the standard input without a thread that would outlive Ctrl-C at the prompt."""

    async def read(prompt: str) -> str:
        if sys.stdin.isatty():
            print(prompt, end="", flush=True)
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
