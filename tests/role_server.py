"""An OpenAI-compatible endpoint behind a real socket, which says what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class RoleServer:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, in the order in which they came."""

    def of(self, model: str) -> list[dict[str, Any]]:
        return [body for body in self.requests if body["model"] == model]


@contextmanager
def role_server(answer: Callable[[dict[str, Any]], str]) -> Iterator[RoleServer]:
    """Serves `answer`, from a request's body to the text to say; every answer has cost 100 and 10 tokens."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            serving.requests.append(body)
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer(body)}}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            said = json.dumps({"id": "1", "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = RoleServer(f"http://127.0.0.1:{running.server_address[1]}/v1")
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield serving
    finally:
        running.shutdown()
        running.server_close()
