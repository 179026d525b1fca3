"""A stand-in for the gateway in tests of what calls it: a scripted policy answers, and steps are recorded alike."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from store.database import Log
from store.trajectories import StepToRecord, record_step


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
    log: Log
    policy: Policy
    delay_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _last: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """session -> (step id, context with what was sampled, messages seen)"""

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
        message = self._record(session, body, said, finish_reason)
        if body.get("stream"):
            return StreamingResponse(_chunks(message, finish_reason), media_type="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "policy", "choices": [choice]}
        return JSONResponse(completion)

    def _record(self, session: str, body: dict[str, Any], said: Says, finish_reason: str) -> dict[str, Any]:
        messages = body["messages"]
        parent, context, seen = self._last.get(session, (None, 0, 0))
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        calls = [
            {"id": f"{session[:8]}-{len(messages)}-{n}", "name": name, "arguments": text}
            for n, (name, text) in enumerate(said.calls)
        ]
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
                finish_reason=finish_reason,
                latency_ms=1.0,
                sampling={"seed": body.get("seed")},
            ),
        )
        self._last[session] = (step_id, context + 3, len(messages) + 1)
        as_openai = [
            {"id": one["id"], "type": "function", "function": {"name": one["name"], "arguments": one["arguments"]}}
            for one in calls
        ]
        return {"role": "assistant", "content": said.content, **({"tool_calls": as_openai} if calls else {})}


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
