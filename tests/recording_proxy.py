"""A reverse proxy between an agent and the gateway that keeps every exchange: what really went over the wire."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Exchange:
    """One request with its answer."""

    path: str
    request: dict[str, Any]
    status: int
    content_type: str
    answer: bytes
    agent: str | None
    """As the request's header names it."""

    @property
    def said(self) -> dict[str, Any]:
        """The assistant message that the client received: content, and tool_calls as {id, name, arguments}."""
        if not self.content_type.startswith("text/event-stream"):
            message = json.loads(self.answer)["choices"][0]["message"]
            calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls") or ()]
            return {"content": message.get("content") or "", "tool_calls": calls}
        content, by_index = "", dict[int, dict[str, str]]()
        events = [line[6:] for line in self.answer.decode().splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]", events[-1]
        for choice in [choice for event in events[:-1] for choice in json.loads(event)["choices"]]:
            content += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or ():
                kept = by_index.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                kept["id"] += call.get("id") or ""
                kept["name"] += call["function"].get("name") or ""
                kept["arguments"] += call["function"].get("arguments") or ""
        return {"content": content, "tool_calls": list(by_index.values())}


@dataclass
class RecordingProxy:
    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    """In the order in which their answers ended; complete once the proxy has ended."""


@contextmanager
def recording_proxy(upstream: str) -> Iterator[RecordingProxy]:
    """Listens on a free port of the loopback and hands every POST on to `upstream`, byte by byte as it comes."""
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=120)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            connection.request("POST", self.path, body, kept)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            received = b""
            while piece := answer.read1():
                received += piece
                self.wfile.write(piece)
            connection.close()
            kind = answer.headers.get("Content-Type", "")
            agent = self.headers.get("X-Checkloop-Agent")
            proxy.exchanges.append(Exchange(self.path, json.loads(body), answer.status, kind, received, agent))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # closing the server waits for them: then `exchanges` is complete
    proxy = RecordingProxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
