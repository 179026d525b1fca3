"""The tools of MCP servers (modelcontextprotocol.io): their specs, and the function that answers calls to them.

Starts or reaches the servers of `agent.mcp_servers`; what those that are started here write to their standard error
goes to `log_dir`/mcp-NAME.log.

Two kinds of failure, kept apart (invariant 3): what a tool itself says is wrong is its answer, which the policy gets as
an error; a server that cannot be started, dies or does not answer in time is a ToolOutage and no mistake of the policy.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from agent.mcp_servers import McpServer
from agent.tools import ToolOutage
from store.records import ToolSpec
from store.settings import SettingsError
from store.trajectories import ToolAnswer
from store.vocabulary import ToolSource

try:
    import httpx2
    from mcp import Client, MCPError, StdioServerParameters, stdio_client, types
    from mcp.client.streamable_http import streamable_http_client
except ImportError as error:
    raise SettingsError(f"MCP servers need an extra ({error}): pip install 'checkloop[mcp]'") from error

START_TIMEOUT_S = 30.0
"""For a server to be there, and again to list its tools."""


class McpTools:
    """The tools of connected servers. `answer` is an `agent.tools.Answer`."""

    def __init__(self, tools: Sequence[tuple[ToolSpec, "_Connection", str]]) -> None:
        self.specs: tuple[ToolSpec, ...] = tuple(spec for spec, _, _ in tools)
        self._tools = {spec.name: (spec, connection, name) for spec, connection, name in tools}

    async def answer(self, name: str, arguments: dict[str, Any], call_id: str) -> ToolAnswer:
        """What the server says to one call. Raises ToolOutage where it says nothing that could be used."""
        spec, connection, tool = self._tools[name]
        began = time.perf_counter()
        text, is_error = await connection.call(tool, arguments, structured=spec.response_schema is not None)
        return ToolAnswer(
            call_id=call_id,
            response=text,
            is_error=is_error,
            source=ToolSource.REAL,
            latency_ms=(time.perf_counter() - began) * 1000,
        )


@asynccontextmanager
async def open_mcp_tools(servers: Mapping[str, McpServer], log_dir: Path) -> AsyncIterator[McpTools]:
    """Connects to all servers at once and lists their tools; closes them at the end. Raises ToolOutage if one fails,
    SettingsError if two tools cannot be told apart."""
    log_dir.mkdir(parents=True, exist_ok=True)
    connections = [_Connection(name, server, log_dir) for name, server in servers.items()]
    try:
        listed = await asyncio.gather(*(connection.tools() for connection in connections))
        yield McpTools(_named(list(zip(connections, listed, strict=True))))
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))


class _Connection:
    """One server, held by a task of its own: when it breaks, nobody's task breaks with it. The call that finds it dead
    fails (it may have been carried out); the next one starts it anew."""

    def __init__(self, name: str, server: McpServer, log_dir: Path) -> None:
        self.name = name
        self._server = server
        self._log_file = log_dir / f"mcp-{_clean(name)}.log"
        self._lock = asyncio.Lock()
        self._client: Client | None = None
        self._stop = asyncio.Event()
        self._holder: asyncio.Task[None] | None = None
        self._said_before = 0

    async def tools(self) -> list[types.Tool]:
        """All that the server offers. Raises ToolOutage."""
        client = await self._connected()
        tools: list[types.Tool] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    page = await client.list_tools(cursor=cursor)
                    tools += page.tools
                    if (cursor := page.next_cursor) is None:
                        return tools
        except Exception as error:
            raise self._outage("does not list its tools", error) from error

    async def call(self, tool: str, arguments: dict[str, Any], *, structured: bool) -> tuple[str, bool]:
        """(what the tool said, whether it is an error)."""
        client = await self._connected()
        try:
            result = await client.call_tool(tool, arguments, read_timeout_seconds=self._server.timeout_s)
        except MCPError as error:
            if error.code == types.INVALID_PARAMS:
                return f"error: {error.message}", True
            if error.code == types.REQUEST_TIMEOUT:
                raise self._outage(f"did not answer {tool} in {self._server.timeout_s:g} s", None) from error
            self._drop(client)
            raise self._outage(f"failed on {tool}", error) from error
        except Exception as error:  # the tool's boundary: whatever the SDK found wrong with the server's answer
            raise self._outage(f"gave no usable answer to {tool}", error) from error
        return response_text(result, structured=structured), result.is_error

    async def close(self) -> None:
        self._stop.set()
        if self._holder is not None:
            await asyncio.wait({self._holder})

    async def _connected(self) -> Client:
        async with self._lock:
            if self._client is None:
                await self.close()
                self._stop = asyncio.Event()
                self._said_before = self._log_file.stat().st_size if self._log_file.exists() else 0
                connected: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
                self._holder = asyncio.create_task(self._hold(connected, self._stop))
                try:
                    self._client = await connected
                except asyncio.CancelledError:
                    self._holder.cancel()
                    raise
                except Exception as error:
                    await self.close()
                    what = "cannot be started" if self._server.command else "cannot be reached"
                    raise self._outage(what, error) from error
            return self._client

    async def _hold(self, connected: "asyncio.Future[Client]", stop: asyncio.Event) -> None:
        """Enters and leaves the connection, which has to happen in one task."""
        client: Client | None = None
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(START_TIMEOUT_S):
                    client = await self._enter(stack)
                if not connected.done():
                    connected.set_result(client)
                await stop.wait()
        except Exception as error:
            if not connected.done():
                connected.set_exception(error)
        finally:
            if self._client is client:
                self._client = None

    async def _enter(self, stack: AsyncExitStack) -> Client:
        server = self._server
        if server.command is not None:
            log = stack.enter_context(self._log_file.open("a"))
            command = StdioServerParameters(
                command=server.command, args=list(server.args), env=server.env, cwd=server.cwd
            )
            return await stack.enter_async_context(Client(stdio_client(command, errlog=log)))
        assert server.url is not None
        timeout = httpx2.Timeout(START_TIMEOUT_S, read=server.timeout_s + START_TIMEOUT_S)
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=server.headers, timeout=timeout))
        return await stack.enter_async_context(Client(streamable_http_client(server.url, http_client=http)))

    def _drop(self, client: Client) -> None:
        if self._client is client:
            self._client = None
            self._stop.set()

    def _outage(self, what: str, error: Exception | None) -> ToolOutage:
        why = f": {_reason(error)}" if error is not None else ""
        return ToolOutage(f"MCP server {self.name!r} {what}{why} ({self._server.url or self._last_words()})")

    def _last_words(self) -> str:
        """The last line that the server wrote to its standard error since it was started, and where to read more."""
        if not self._log_file.exists():
            return f"command: {self._server.command}"
        with self._log_file.open("rb") as log:
            log.seek(self._said_before)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"it said {lines[-1][:200]!r}, log: {self._log_file}" if lines else f"log: {self._log_file}"


def response_text(result: types.CallToolResult, *, structured: bool) -> str:
    """What the policy reads. A tool that declares an output schema answers in that form, as a simulator of it would;
    images and other things that are no text are named, not shown."""
    if structured and result.structured_content is not None and not result.is_error:
        return json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))
    parts = []
    for block in result.content:
        if isinstance(block, types.TextContent):
            parts.append(block.text)
        elif isinstance(block, types.EmbeddedResource) and isinstance(block.resource, types.TextResourceContents):
            parts.append(block.resource.text)
        elif isinstance(block, types.ResourceLink):
            parts.append(f"[{block.uri}]")
        else:
            parts.append(f"[{block.type}, not shown]")
    return "\n".join(parts) or ("error: the tool failed without a word" if result.is_error else "")


def _named(
    listed: Sequence[tuple[_Connection, Sequence[types.Tool]]],
) -> list[tuple[ToolSpec, _Connection, str]]:
    """Specs under names that a model may use; a name that several servers have gets the server's in front."""
    shared = Counter(_clean(tool.name) for _, tools in listed for tool in tools)
    named = []
    for connection, tools in listed:
        for tool in tools:
            name = _clean(tool.name)
            if shared[name] > 1:
                name = _clean(f"{connection.name}_{tool.name}")
            spec = ToolSpec(
                name=name,
                description=tool.description or tool.title or "",
                parameters=tool.input_schema,
                response_schema=tool.output_schema,
            )
            named.append((spec, connection, tool.name))
    for name, count in Counter(spec.name for spec, _, _ in named).items():
        if count > 1:
            raise SettingsError(f"{count} tools of the MCP servers have the name {name!r}: disable one of the servers")
    return named


def _clean(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64]


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer in {START_TIMEOUT_S:g} s"
    return str(error) or type(error).__name__
