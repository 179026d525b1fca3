"""A stand-in for the gateway in tests of what calls it: a scripted policy answers, and steps are recorded alike."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agent.ports import free_port
from store.database import Log
from store.trajectories import StepToRecord, record_step
from store.versions import live_version, set_version_state
from store.vocabulary import VersionState


@dataclass(frozen=True)
class Says:
    """What the scripted policy samples: a reply, or calls as (name, arguments text)."""

    content: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish_reason: str | None = None


@dataclass(frozen=True)
class Refuses:
    """An HTTP error instead of a completion."""

    status: int
    code: str = "server_error"


Policy = Callable[[dict[str, Any]], Says | Refuses]
"""From the request's body, to which the `session` is added."""


def call(name: str, **arguments: Any) -> Says:
    return Says(calls=((name, json.dumps(arguments)),))


@dataclass
class ScriptedGateway:
    """`delay_s` passes before an answer, `pace_s` before each word of one that is streamed."""

    log: Log
    policy: Policy
    delay_s: float = 0.0
    pace_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    calls_made: int = 0
    _continued: set[tuple[str, int | None]] = field(default_factory=set)
    """(session, step) that some later step extends."""
    _contexts: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    """(session, its messages) -> (step id, context with what was sampled, number of messages)"""

    def client(self) -> openai.DefaultAsyncHttpxClient:
        app = FastAPI()
        app.post("/sessions/{session}/v1/chat/completions")(self.complete)
        return openai.DefaultAsyncHttpxClient(transport=httpx2.ASGITransport(app=app))

    async def complete(self, session: str, request: Request) -> Response:
        body = {**await request.json(), "session": session}
        self.requests.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            said = self.policy(body)
        finally:
            self.in_flight -= 1
        if isinstance(said, Refuses):
            error = {"message": f"scripted {said.code}", "type": "error", "code": said.code}
            return JSONResponse({"error": error}, status_code=said.status)
        finish_reason = said.finish_reason or ("tool_calls" if said.calls else "stop")
        if body.get("stream") and self.pace_s and not said.calls:
            return StreamingResponse(self._slowly(session, body, said, finish_reason), media_type="text/event-stream")
        message = self._record(session, body, said, finish_reason)
        if body.get("stream"):
            return StreamingResponse(_chunks(message, finish_reason), media_type="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "policy", "choices": [choice]}
        return JSONResponse(completion)

    async def _slowly(self, session: str, body: dict[str, Any], said: Says, finish_reason: str) -> AsyncIterator[str]:
        """A reply word by word; of one that the client does not wait for, the log keeps what was said."""
        words = re.findall(r"\s*\S+", said.content)
        sent = 0
        try:
            for word in words:
                await asyncio.sleep(self.pace_s)
                sent += 1
                yield _chunk({"index": 0, "delta": {"content": word}, "finish_reason": None})
        finally:
            whole = sent == len(words)
            self._record(session, body, Says("".join(words[:sent])), finish_reason if whole else "cancelled")
        yield _chunk({"index": 0, "delta": {}, "finish_reason": finish_reason})
        yield "data: [DONE]\n\n"

    def _record(self, session: str, body: dict[str, Any], said: Says, finish_reason: str) -> dict[str, Any]:
        messages = body["messages"]
        parent, context, seen = self._parent(session, messages)
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        calls = []
        for name, text in said.calls:
            self.calls_made += 1
            calls.append({"id": f"{session[:16]}-{self.calls_made}", "name": name, "arguments": text})
        step_id = record_step(
            self.log,
            StepToRecord(
                trajectory_id=session,
                turn_index=len(users) - 1,
                index=sum(message["role"] == "assistant" for message in messages[users[-1] :]),
                parent_id=parent,
                user=messages[users[-1]]["content"],
                version="v0001",
                new_messages=messages[seen:],
                tools_hash=None,
                message={"content": said.content, "reasoning": "", "tool_calls": calls},
                delta_ids=[1, 2],
                sampled_ids=[3],
                logprobs=[-0.5],
                context_tokens=context + 2,
                # As vLLM says it, which knows of no tool calls.
                finish_reason="stop" if finish_reason == "tool_calls" else finish_reason,
                latency_ms=1.0,
                sampling={"seed": body.get("seed")},
                forked=(session, parent) in self._continued,
            ),
        )
        self._continued.add((session, parent))
        as_openai = [
            {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
            for one in calls
        ]
        answer = {"role": "assistant", "content": said.content, **({"tool_calls": as_openai} if calls else {})}
        self._contexts[session, _print([*messages, answer])] = (step_id, context + 3, len(messages) + 1)
        return answer

    def _parent(self, session: str, messages: list[dict[str, Any]]) -> tuple[int | None, int, int]:
        """The recorded step whose dialogue the messages go on with: the longest; none begins a dialogue anew."""
        for end in range(len(messages), 0, -1):
            if found := self._contexts.get((session, _print(messages[:end]))):
                return found
        return None, 0, 0


def _print(messages: list[dict[str, Any]]) -> str:
    """Messages in a form in which those of a client equal those that were sent."""
    said = [
        [
            message["role"],
            message.get("content") or "",
            [[call["id"], _parsed(call["function"]["arguments"])] for call in message.get("tool_calls") or ()],
        ]
        for message in messages
    ]
    return json.dumps(said, sort_keys=True)


def _parsed(arguments: str) -> Any:
    """Clients parse arguments and write them again; text that is no JSON comes back as it was."""
    try:
        return json.loads(arguments or "{}", parse_constant=str)
    except (ValueError, RecursionError):
        return arguments


async def _chunks(message: dict[str, Any], finish_reason: str) -> AsyncIterator[str]:
    deltas: list[dict[str, Any]] = [{"content": word} for word in re.findall(r"\s*\S+", message["content"])]
    deltas += [{"tool_calls": [{"index": n, **one}]} for n, one in enumerate(message.get("tool_calls", ()))]
    for delta in [{"role": "assistant", "content": ""}, *deltas]:
        yield _chunk({"index": 0, "delta": delta, "finish_reason": None})
    yield _chunk({"index": 0, "delta": {}, "finish_reason": finish_reason})
    yield "data: [DONE]\n\n"


def _chunk(choice: dict[str, Any]) -> str:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "policy", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


class RunningGateway:
    """The scripted gateway behind a real port, with the health route that the dashboard asks."""

    def __init__(self, log: Log, policy: Policy, port: int = 0, **options: float) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.scripted = ScriptedGateway(log, policy, **options)
        app = FastAPI()
        app.post("/sessions/{session}/v1/chat/completions")(self.scripted.complete)
        app.get("/health")(lambda: {"servers": {"live": True}})
        app.post("/admin/promote/{version}")(self.promote)
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def promote(self, version: str, reason: str) -> dict[str, Any]:
        """As the gateway's, without weights."""
        before = live_version(self.scripted.log)
        set_version_state(self.scripted.log, version, VersionState.LIVE, reason)
        seconds = {"drain_s": 0.1, "reload_s": 0.2, "proof_s": 0.3}
        return {"accepted": True, "before": before.name if before else None, **seconds}

    def __enter__(self) -> "RunningGateway":
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the scripted gateway did not start"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
