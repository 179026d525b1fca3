"""The gateway: the one door to the policy (FastAPI).

OpenAI-compatible chat completions, plain and streamed, under `/v1` and `/sessions/{session}/v1`. Each request is
rendered once, sent to vLLM as ids, and recorded before the answer's last byte leaves. The admin routes load and
promote versions; they are for the same machine only, like everything here in its first form.
"""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agent.completions import StreamParser, parse_completion
from agent.conversations import Conversation, Conversations, Prompt, as_openai_message, tools_hash
from agent.fleet import Fleet, Slot
from agent.openai_form import (
    ApiError,
    ChatRequest,
    chat_answer,
    chat_chunk,
    completion_id,
    parse_request,
    usage_of,
)
from agent.rendering import Renderer
from agent.vllm_server import SERVED_NAME, ServerError
from store.database import Log, LogError
from store.settings import Settings
from store.steps import StepToRecord, record_step
from store.trajectories import ensure_trajectory
from store.versions import list_versions
from store.vocabulary import Origin


class Gateway:
    """What the routes call; holds no state but its sessions' contexts."""

    def __init__(self, log: Log, fleet: Fleet, renderer: Renderer, settings: Settings) -> None:
        self.log = log
        self.fleet = fleet
        self.renderer = renderer
        self.max_len = settings.server.max_model_len
        self.timeout_s = settings.gateway.request_timeout_s
        self._conversations = Conversations(log, renderer)
        self._announced: set[str] = set()

    async def answer(self, session: str, request: ChatRequest) -> dict[str, Any]:
        """Samples one step, records it and gives it in OpenAI's form. Raises ApiError, ServerError, LogError."""
        slot = self.fleet.slot_of(request.model)
        prompt, conversation = await self._prepare(session, request)
        async with slot.lease() as version:
            self._check_version(request, slot, version)
            began = time.perf_counter()
            body = self._sampling_body(request, prompt)
            try:
                raw = await asyncio.wait_for(slot.server.complete(body), self.timeout_s)
            except TimeoutError as error:
                raise ApiError(504, f"no answer within {self.timeout_s:.0f} s", "timeout", "server_error") from error
        choice = raw["choices"][0]
        check_prompt(prompt, choice["prompt_token_ids"])
        sampled = Sampled(choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"])
        message = self._message(choice["text"], call_ids())
        await self._record(session, request, prompt, conversation, version, sampled, message, began)
        usage = usage_of(len(prompt.ids), len(sampled.ids))
        return chat_answer(completion_id(), version, _public(message), _finish(message, sampled.finish), usage)

    async def stream(self, session: str, request: ChatRequest) -> AsyncIterator[dict[str, Any]]:
        """Like `answer`, as chunks; the last ones leave after the step is recorded."""
        slot = self.fleet.slot_of(request.model)
        prompt, conversation = await self._prepare(session, request)
        identifier, parser = completion_id(), StreamParser(call_ids())
        ids: list[int] = []
        logprobs: list[float] = []
        finish: str | None = None
        async with slot.lease() as version:
            self._check_version(request, slot, version)
            began = time.perf_counter()
            yield chat_chunk(identifier, version, {"role": "assistant", "content": ""})
            async with slot.server.stream(self._sampling_body(request, prompt) | {"stream": True}) as lines:
                async for line in lines:
                    if line == "[DONE]":
                        break
                    value = json.loads(line)
                    if "error" in value:
                        raise ServerError(f"vLLM broke off: {value['error']}")
                    choice = value["choices"][0]
                    if not ids and choice.get("prompt_token_ids") is not None:
                        check_prompt(prompt, choice["prompt_token_ids"])
                    ids += choice.get("token_ids") or []
                    logprobs += (choice.get("logprobs") or {}).get("token_logprobs") or []
                    finish = choice.get("finish_reason") or finish
                    for delta in parser.feed(self._without_end(choice["text"])):
                        yield chat_chunk(identifier, version, delta)
        for delta in parser.feed("", final=True):
            yield chat_chunk(identifier, version, delta)
        parsed = parse_completion(parser.text)
        calls = [{"id": c["id"], **c["function"]} for c in parser.calls]
        message = {"content": parsed.content, "reasoning": parsed.reasoning, "tool_calls": calls}
        sampled = Sampled(ids, logprobs, finish)
        await self._record(session, request, prompt, conversation, version, sampled, message, began)
        yield chat_chunk(identifier, version, {}, _finish(message, finish))
        if request.stream_options and request.stream_options.include_usage:
            closing = chat_chunk(identifier, version, {}, usage=usage_of(len(prompt.ids), len(ids)))
            yield closing | {"choices": []}

    async def _prepare(self, session: str, request: ChatRequest) -> tuple[Prompt, Conversation]:
        if session not in self._announced:
            await asyncio.to_thread(ensure_trajectory, self.log, session, Origin.CHAT, None)
            self._announced.add(session)
        conversation = self._conversations.get(session)
        try:
            prompt = conversation.prompt(self.renderer, request.dumped_messages(), self._tools(request))
        except (TypeError, KeyError, AttributeError) as error:
            raise ApiError(400, f"messages or tools cannot be rendered: {error}", "invalid_messages") from error
        if len(prompt.ids) >= self.max_len:
            raise ApiError(
                400,
                f"the prompt has {len(prompt.ids)} tokens, the model's context is {self.max_len}",
                "context_length_exceeded",
            )
        return prompt, conversation

    def _tools(self, request: ChatRequest) -> list[dict[str, Any]] | None:
        return request.tools if request.tools and request.tool_choice != "none" else None

    def _check_version(self, request: ChatRequest, slot: Slot, version: str) -> None:
        wanted = request.model.partition("@")[2]
        if wanted and wanted != version:
            raise ApiError(404, f"version {wanted!r} was swapped out while the request waited", "model_not_found")

    def _sampling_body(self, request: ChatRequest, prompt: Prompt) -> dict[str, Any]:
        room = self.max_len - len(prompt.ids)
        body: dict[str, Any] = {
            "model": SERVED_NAME,
            "prompt": prompt.ids,
            "max_tokens": min(request.token_limit or room, room),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "stop_token_ids": [self.renderer.end_of_turn_id],
        }
        for name in ("seed", "stop", "response_format"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        return body

    def _without_end(self, text: str) -> str:
        return text.removesuffix(self.renderer.end_of_turn)

    def _message(self, text: str, ids: Iterator[str]) -> dict[str, Any]:
        parsed = parse_completion(self._without_end(text))
        calls = [{"id": next(ids), "name": c.name, "arguments": c.arguments} for c in parsed.calls]
        return {"content": parsed.content, "reasoning": parsed.reasoning, "tool_calls": calls}

    async def _record(
        self,
        session: str,
        request: ChatRequest,
        prompt: Prompt,
        conversation: Conversation,
        version: str,
        sampled: "Sampled",
        message: dict[str, Any],
        began: float,
    ) -> None:
        reason = _untrainable(request, sampled)
        step = StepToRecord(
            trajectory_id=session,
            turn_index=prompt.turn_index,
            index=prompt.step_index,
            parent_id=prompt.parent.step_id if prompt.parent else None,
            user=prompt.user,
            version=version,
            new_messages=prompt.new_messages,
            tools_hash=tools_hash(self._tools(request)),
            message=message,
            delta_ids=prompt.delta_ids,
            sampled_ids=sampled.ids,
            logprobs=sampled.logprobs,
            context_tokens=len(prompt.ids),
            finish_reason=sampled.finish,
            latency_ms=(time.perf_counter() - began) * 1000,
            sampling=request.model_dump(
                include={"temperature", "top_p", "seed", "stop", "response_format"}, exclude_none=True
            ),
            trainable=reason is None,
            untrainable_reason=reason,
        )
        step_id = await asyncio.to_thread(record_step, self.log, step)
        ended = bool(sampled.ids) and sampled.ids[-1] == self.renderer.end_of_turn_id
        conversation.add(
            step_id,
            request.dumped_messages(),
            self._tools(request),
            as_openai_message(message),
            [*prompt.ids, *sampled.ids],
            ended,
        )


class Sampled:
    """What the server returned: ids, their logprobs (nats), why it stopped ("stop" or "length")."""

    def __init__(self, ids: list[int], logprobs: list[float], finish: str | None) -> None:
        if len(ids) != len(logprobs):
            raise ServerError(f"vLLM returned {len(ids)} token ids but {len(logprobs)} logprobs")
        self.ids, self.logprobs, self.finish = ids, logprobs, finish


def check_prompt(prompt: Prompt, seen: list[int]) -> None:
    """Invariant 1, on every step: the server saw exactly the ids that are recorded."""
    if seen != prompt.ids:
        raise ServerError(f"vLLM saw a prompt of {len(seen)} ids that are not the {len(prompt.ids)} that it was sent")


def call_ids() -> Iterator[str]:
    stem = uuid.uuid4().hex[:12]
    return (f"call_{stem}{n}" for n in itertools.count())


def _untrainable(request: ChatRequest, sampled: Sampled) -> str | None:
    """Decided here, at log time, never in the trainer."""
    if not sampled.ids:
        return "nothing was sampled"
    if request.temperature != 1.0 or request.top_p != 1.0:
        return "sampled at another temperature than 1"
    if request.response_format is not None:
        return "sampled under a grammar"
    return None


def _finish(message: dict[str, Any], finish: str | None) -> str | None:
    return "tool_calls" if message["tool_calls"] and finish == "stop" else finish


def _public(message: dict[str, Any]) -> dict[str, Any]:
    answer = as_openai_message(message)
    if message["reasoning"]:
        answer["reasoning_content"] = message["reasoning"]
    return answer


def make_app(gateway: Gateway) -> FastAPI:
    """The application; the fleet is started and stopped with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            gateway.fleet.stop()

    app = FastAPI(title="checkloop gateway", lifespan=lifespan)

    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> JSONResponse:
        headers = {"Retry-After": "2"} if error.status == 503 else None
        return JSONResponse(error.body, status_code=error.status, headers=headers)

    @app.exception_handler(ServerError)
    async def server_failed(_: Request, error: ServerError) -> JSONResponse:
        failure = ApiError(503, str(error), "policy_server_failed", "server_error")
        return JSONResponse(failure.body, status_code=503, headers={"Retry-After": "1"})

    @app.exception_handler(LogError)
    async def log_failed(_: Request, error: LogError) -> JSONResponse:
        failure = ApiError(503, f"the step could not be recorded: {error}", "log_failed", "server_error")
        return JSONResponse(failure.body, status_code=503)

    async def complete(session: str, request: Request) -> Response:
        chat = parse_request(await request.body())
        if not chat.stream:
            return JSONResponse(await gateway.answer(session, chat))
        chunks = gateway.stream(session, chat)
        # The first chunk is drawn before the status line leaves, so that a refusal keeps its status.
        first = await anext(chunks)
        return StreamingResponse(_events(first, chunks), media_type="text/event-stream")

    @app.post("/sessions/{session}/v1/chat/completions")
    async def complete_in_session(session: str, request: Request) -> Response:
        if not 1 <= len(session) <= 64:
            raise ApiError(400, "a session name has 1 to 64 characters", "invalid_session")
        return await complete(session, request)

    @app.post("/v1/chat/completions")
    async def complete_alone(request: Request) -> Response:
        return await complete(request.headers.get("x-session") or f"s-{uuid.uuid4().hex[:16]}", request)

    @app.get("/v1/models")
    @app.get("/sessions/{session}/v1/models")
    async def models() -> dict[str, Any]:
        held = sorted({slot.version for slot in gateway.fleet.slots.values()})
        names = [SERVED_NAME, *(f"{SERVED_NAME}@{version}" for version in held)]
        return {"object": "list", "data": [{"id": n, "object": "model", "owned_by": "checkloop"} for n in names]}

    @app.get("/health")
    async def health() -> JSONResponse:
        servers = {name: slot.server.alive for name, slot in gateway.fleet.slots.items()}
        return JSONResponse({"servers": servers}, status_code=200 if all(servers.values()) else 503)

    @app.get("/admin/versions")
    async def versions() -> dict[str, Any]:
        states = {v.name: v.state for v in await asyncio.to_thread(list_versions, gateway.log)}
        return {"loaded": {name: slot.version for name, slot in gateway.fleet.slots.items()}, "states": states}

    @app.post("/admin/stage/{version}")
    async def stage(version: str) -> dict[str, Any]:
        return (await gateway.fleet.stage(version)).figures()

    @app.post("/admin/promote/{version}")
    async def promote(version: str, reason: str = "promoted by hand") -> dict[str, Any]:
        return (await gateway.fleet.promote(version, reason)).figures()

    return app


async def _events(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    yield f"data: {json.dumps(first)}\n\n"
    try:
        async for chunk in rest:
            yield f"data: {json.dumps(chunk)}\n\n"
    except (ApiError, ServerError, LogError) as error:
        body = error.body if isinstance(error, ApiError) else ApiError(503, str(error), "failed", "server_error").body
        yield f"data: {json.dumps(body)}\n\n"
        return
    yield "data: [DONE]\n\n"
