"""The gateway's addresses (FastAPI): chat completions, models, health, and the admin routes for versions.

A generation runs in a task of its own: a slow reader holds up nobody, and a client that goes away ends it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from agent.addresses import check_name, name_from_header, name_in_header, refuse_strangers
from agent.gateway import Gateway
from agent.openai_answers import event_line, json_bytes
from agent.openai_form import ApiError, ChatRequest, parse_request
from agent.vllm_client import SERVED_NAME, BadAnswer, ServerError
from store.database import LogError
from store.versions import list_versions
from store.vocabulary import VERSION_TRANSITIONS, VersionState

SESSION_HEADER, AGENT_HEADER = "x-checkloop-session", "x-checkloop-agent"
CLIENT_CLOSED_REQUEST = 499

Chunk = dict[str, Any] | str
T = TypeVar("T")


def make_app(gateway: Gateway) -> FastAPI:
    """The application; dialogues are written and servers stopped when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await gateway.close()

    app = FastAPI(title="checkloop gateway", lifespan=lifespan, openapi_url=None)
    token = gateway.settings.token
    limit = int(gateway.settings.max_body_mib * 2**20)

    def admit(request: Request) -> None:
        """Without a token an address is all that keeps pages of the web out; with one they do not know it."""
        if token is None:
            headers = request.headers
            return refuse_strangers(headers.get("host", ""), headers.get("origin"), gateway.settings.host)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise ApiError(401, "this gateway needs its bearer token as the API key", "invalid_api_key")
        return None

    @app.exception_handler(HTTPException)
    async def no_such_address(request: Request, error: HTTPException) -> JSONResponse:
        """What the router itself refuses."""
        asked = f"{request.method} {request.url.path}"
        if error.status_code == 404:
            return _refusal(ApiError(404, f"there is nothing at {asked}", "not_found"))
        allowed = (error.headers or {}).get("Allow", "")
        said = f"{asked} is not answered; use {allowed}" if allowed else f"{asked}: {error.detail}"
        code = "method_not_allowed" if error.status_code == 405 else "refused"
        return _refusal(ApiError(error.status_code, said, code), error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        """Of the query: bodies are read by `parse_request`."""
        wrong = error.errors()
        said = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in wrong)
        return _refusal(ApiError(400, said, "invalid_parameter", param=str(wrong[0]["loc"][-1])))

    async def failed(_: Request, error: Exception) -> JSONResponse:
        refused = as_api_error(error)
        # What is left of a body that came too late is not waited for.
        return _refusal(refused, {"Connection": "close"} if refused.status == 408 else None)

    for kind in (ApiError, ServerError, LogError, Exception):
        app.add_exception_handler(kind, failed)

    async def _read_in_time(request: Request) -> bytes:
        """A body that only trickles in would hold its connection for ever: it has no place and no deadline yet."""
        patience = gateway.settings.request_timeout_s
        try:
            async with asyncio.timeout(patience):
                return await read_body(request, limit)
        except TimeoutError as error:
            said = f"the body did not come within {patience:g} s (gateway.request_timeout_s)"
            raise ApiError(408, said, "request_timeout") from error
        except ClientDisconnect as error:
            raise ApiError(CLIENT_CLOSED_REQUEST, "the client went away in the middle of its body", "gone") from error

    async def complete(request: Request, session: str | None, agent: str | None) -> Response:
        admit(request)
        if session is None and (named := request.headers.get(SESSION_HEADER)):
            session = name_from_header("session", named)
        if agent is None and (named := request.headers.get(AGENT_HEADER)):
            agent = name_from_header("agent", named)
        if session is not None:
            check_name("session", session)
        if agent is not None:
            check_name("agent", agent)
            if session is None:
                raise ApiError(
                    400, f"agent {agent!r} needs a session: name it in the URL or {SESSION_HEADER}", "no_session"
                )
        chat = parse_request(await _read_in_time(request))
        if chat.stream:
            return await _streamed(request, gateway, session, agent, chat)
        answering = asyncio.ensure_future(gateway.answer(session, agent, chat))
        outcome = await _unless_gone(request, answering)
        if outcome is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        answer, name = outcome
        return Response(
            json_bytes(answer), media_type="application/json", headers={SESSION_HEADER: name_in_header(name)}
        )

    @app.post("/sessions/{session}/agents/{agent}/v1/chat/completions")
    async def complete_for_agent(session: str, agent: str, request: Request) -> Response:
        return await complete(request, session, agent)

    @app.post("/sessions/{session}/v1/chat/completions")
    async def complete_in_session(session: str, request: Request) -> Response:
        return await complete(request, session, None)

    @app.post("/v1/chat/completions")
    async def complete_alone(request: Request) -> Response:
        return await complete(request, None, None)

    @app.get("/v1/models")
    @app.get("/sessions/{session}/v1/models")
    @app.get("/sessions/{session}/agents/{agent}/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        admit(request)
        held = {slot.version for slot in gateway.fleet.slots.values()}
        held |= {version for slot in gateway.fleet.slots.values() for version in slot.adapters}
        names = [SERVED_NAME, *(f"{SERVED_NAME}@{version}" for version in sorted(held))]
        entry = {"object": "model", "owned_by": "checkloop", "created": 0, "max_model_len": gateway.max_len}
        return {"object": "list", "data": [{"id": name, **entry} for name in names]}

    @app.get("/health")
    async def health() -> JSONResponse:
        servers = {name: slot.able for name, slot in gateway.fleet.slots.items()}
        return JSONResponse({"servers": servers}, status_code=200 if all(servers.values()) else 503)

    @app.get("/admin/versions")
    async def versions(request: Request) -> dict[str, Any]:
        admit(request)
        states = {v.name: v.state for v in await asyncio.to_thread(list_versions, gateway.log)}
        split = gateway.fleet.split
        return {
            "live": gateway.fleet.live_version,
            "loaded": {name: slot.version for name, slot in gateway.fleet.slots.items()},
            "states": states,
            "split": {"candidate": split.candidate, "share": split.share} if split else None,
            "in_flight": gateway.admission.in_flight,
            "waiting": gateway.admission.waiting,
        }

    @app.post("/admin/stage/{version}")
    async def stage(version: str, request: Request) -> dict[str, Any]:
        admit(request)
        await _known(gateway, version)
        return (await gateway.fleet.stage(version)).figures()

    @app.post("/admin/promote/{version}")
    async def promote(version: str, request: Request, reason: str = "promoted by hand") -> dict[str, Any]:
        admit(request)
        state = await _known(gateway, version)
        if state is not VersionState.LIVE and VersionState.LIVE not in VERSION_TRANSITIONS[state]:
            raise ApiError(409, f"version {version!r} is {state} and cannot go live", "version_refused")
        return (await gateway.fleet.promote(version, reason)).figures()

    @app.post("/admin/split")
    async def split(request: Request, share: float, candidate: str | None = None, reason: str = "") -> dict[str, Any]:
        admit(request)
        if candidate is not None:
            state = await _known(gateway, candidate)
            if state is not VersionState.CANDIDATE or not 0 <= share <= 1:
                raise ApiError(409, f"a candidate takes a share of 0 to 1; {candidate} is {state}", "split_refused")
        await gateway.fleet.set_split(candidate, share, reason or "set by hand")
        return await versions(request)

    return app


async def _known(gateway: Gateway, version: str) -> VersionState:
    """The version's state. Raises ApiError 404 for one that is not in the log."""
    found = {v.name: v.state for v in await asyncio.to_thread(list_versions, gateway.log)}
    if version not in found:
        raise ApiError(404, f"there is no version {version!r} in the log", "version_not_found")
    return found[version]


async def read_body(request: Request, limit: int) -> bytes:
    """Raises ApiError 413 for a body of more than `limit` bytes, without reading the rest."""
    parts: list[bytes] = []
    size = 0
    declared = request.headers.get("content-length", "")
    if not (declared.isdigit() and int(declared) > limit):
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
        else:
            return b"".join(parts)
    raise ApiError(413, f"the body is larger than {limit / 2**20:g} MiB (gateway.max_body_mib)", "request_too_large")


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of a failure."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BadAnswer):
        return ApiError(502, str(error), "policy_server_bad_answer", "server_error", retry_after=1)
    if isinstance(error, ServerError):
        return ApiError(503, str(error), "policy_server_failed", "server_error", retry_after=1)
    if isinstance(error, LogError):
        return ApiError(503, f"the step could not be recorded: {error}", "log_failed", "server_error", retry_after=2)
    return ApiError(500, f"the gateway failed: {type(error).__name__}: {error}", "internal_error", "server_error")


def _refusal(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    more = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return JSONResponse(error.body, status_code=error.status, headers={**(headers or {}), **more})


async def _unless_gone(
    request: Request, answering: "asyncio.Future[tuple[dict[str, Any], str]]"
) -> tuple[dict[str, Any], str] | None:
    """The answer; None, with the generation ended, if the client goes away before it."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
        return await answering if answering.done() else None
    finally:
        gone.cancel()
        await _end(answering)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _ClientGone(Exception):
    """Nobody is there any more to be answered."""


async def _unless(gone: "asyncio.Future[Any]", awaited: Coroutine[Any, Any, T]) -> T:
    """What is awaited. Raises _ClientGone if the client goes away before it is there."""
    waiting = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise _ClientGone
        return waiting.result()
    finally:
        waiting.cancel()


async def _end(task: "asyncio.Future[Any]") -> None:
    """Cancels a task and waits until it has put away what it had."""
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def _streamed(
    request: Request, gateway: Gateway, session: str | None, agent: str | None, chat: ChatRequest
) -> Response:
    queue: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()
    generating = asyncio.ensure_future(_generate(gateway.stream(session, agent, chat), queue))
    gone: asyncio.Future[Any] = asyncio.ensure_future(_gone(request))
    try:
        # The first chunk is drawn before the status line leaves, so that a refusal keeps its status.
        name, first = await _unless(gone, queue.get()), None
        if isinstance(name, str):
            first = await _unless(gone, queue.get())
        for drawn in (name, first):
            if isinstance(drawn, BaseException):
                raise drawn
    except _ClientGone:
        await _end(generating)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except BaseException:
        await _end(generating)
        raise
    finally:
        gone.cancel()
    headers = {SESSION_HEADER: name_in_header(str(name)), "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(first, queue, generating), media_type="text/event-stream", headers=headers)


async def _generate(chunks: AsyncIterator[Chunk], queue: "asyncio.Queue[Chunk | BaseException | None]") -> None:
    try:
        async for chunk in chunks:
            queue.put_nowait(chunk)
    except Exception as error:
        queue.put_nowait(error)
    else:
        queue.put_nowait(None)


async def _events(
    first: Any, queue: "asyncio.Queue[Chunk | BaseException | None]", generating: "asyncio.Future[None]"
) -> AsyncIterator[bytes]:
    try:
        chunk: Chunk | BaseException | None = first
        while chunk is not None:
            if isinstance(chunk, BaseException):
                yield event_line(as_api_error(chunk).body)
                return
            assert isinstance(chunk, dict)
            yield event_line(chunk)
            chunk = await queue.get()
        yield b"data: [DONE]\n\n"
    finally:
        await asyncio.shield(_end(generating))
