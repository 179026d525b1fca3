"""A small real MCP server for tests: `python mcp_server.py` speaks on standard input and output, `… PORT` over HTTP.

It keeps notes in memory, so that a server that was started anew is empty.
"""

import os
import sys
import time
from typing import Any

from mcp.server import MCPServer
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, CallToolResult, ImageContent, TextContent
from pydantic import BaseModel

server = MCPServer("notes")
notes: list[str] = []


class Found(BaseModel):
    notes: list[str]
    total: int


@server.tool(structured_output=False)
def add_note(text: str, times: int = 1) -> str:
    """Keeps a note."""
    notes.extend([text] * times)
    return f"kept as number {len(notes)}"


@server.tool()
def find_notes(word: str) -> Found:
    """The notes that hold a word."""
    found = [note for note in notes if word in note]
    return Found(notes=found, total=len(found))


@server.tool(structured_output=False)
def fail(how: str) -> Any:
    """Fails in the way asked for."""
    if how == "exit":
        print("out of paper", file=sys.stderr, flush=True)
        os._exit(3)
    if how == "protocol":
        raise MCPError(INVALID_PARAMS, "how must not be 'protocol'")
    if how == "sleep":
        time.sleep(30)
    raise ValueError("no such way to fail")


@server.tool(name="draw.it", structured_output=False)
def draw() -> CallToolResult:
    """A picture with its caption."""
    image = ImageContent(type="image", data="aGk=", mime_type="image/png")
    return CallToolResult(content=[TextContent(type="text", text="a cat"), image])


@server.tool(structured_output=False)
def environment(name: str) -> str:
    """A variable of the server's environment."""
    return os.environ.get(name, "not set")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
