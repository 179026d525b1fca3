"""A stand-in for vLLM that misbehaves on request: what no real server does when it is asked to."""

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from agent.bundled_model import prepare_bundled_model
from agent.commands import started
from agent.gateway import Gateway
from agent.ports import free_ports
from store.database import Log, open_log
from store.settings import Settings, load_settings
from store.versions import add_version, set_version_state
from store.vocabulary import VersionState
from tests.serving import MODEL

WORDS = [" yes", " no", " maybe", " fine"]
END = 2
"""The bundled model's end-of-turn token."""


@dataclass
class FaultyVllm:
    """Answers `tokens` tokens, `pause_s` apart, then the end; `fault` says what goes wrong instead."""

    fault: str = ""
    tokens: int = 4
    pause_s: float = 0.0
    script: list[list[int]] = field(default_factory=list)
    """What it samples, answer by answer; afterwards `tokens` tokens."""
    spell: Callable[[list[int]], str] | None = None
    """From sampled ids to their text; None: `WORDS`."""
    weights: str = ""
    """What was loaded last."""
    stuck: str = ""
    """What it never comes to the end of: "health", "reload", "probe" or "adapter"."""
    reloads_left: int | None = None
    """So many reloads succeed, None: all."""
    adapters: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    """Adapters that it was asked to load, in order."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    aborted: int = 0
    running: int = 0
    url: str = ""

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/health")(self.health)
        app.get("/v1/models")(self.models)
        app.post("/v1/load_lora_adapter")(self.load_adapter)
        app.post("/v1/unload_lora_adapter")(self.unload_adapter)
        app.post("/v1/completions")(self.complete)
        app.post("/collective_rpc")(self.reload)
        app.post("/reset_prefix_cache")(lambda: {"success": self.running == 0})
        return app

    async def health(self) -> Response:
        await self._hang("health")
        return PlainTextResponse("", 500 if self.fault == "sick" else 200)

    async def models(self) -> dict[str, Any]:
        adapters = [{"id": name, "parent": "policy"} for name in self.adapters]
        return {"data": [{"id": "policy", "parent": None}, *adapters]}

    async def _hang(self, what: str) -> None:
        while self.stuck == what:
            await asyncio.sleep(0.02)

    async def load_adapter(self, request: Request) -> Response:
        await self._hang("adapter")
        name = (await request.json())["lora_name"]
        self.loads.append(name)
        if name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            return JSONResponse({"error": {"message": message}}, 400)
        self.adapters.append(name)
        return PlainTextResponse("Success")

    async def unload_adapter(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        if name not in self.adapters:
            return JSONResponse({"error": {"message": f"The lora adapter '{name}' cannot be found."}}, 404)
        self.adapters.remove(name)
        return PlainTextResponse("Success")

    async def reload(self, request: Request) -> Response:
        await self._hang("reload")
        if self.fault == "reload fails" or self.reloads_left == 0:
            return JSONResponse({"error": {"message": "no such file"}}, 500)
        if self.reloads_left is not None:
            self.reloads_left -= 1
        self.weights = (await request.json())["kwargs"]["weights_path"]
        return JSONResponse({"results": [None]})

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        if body.get("prompt_logprobs") is not None:
            await self._hang("probe")
            return (
                JSONResponse({"error": {"message": "probed"}}, 500) if self.fault == "unproved" else self._scored(body)
            )
        faults = {
            "no json": PlainTextResponse("<html>it works</html>"),
            "html json": PlainTextResponse("{broken"),
            "no choices": JSONResponse({"choices": []}),
            "other prompt": JSONResponse({"choices": [self._choice(body, [5, END]) | {"prompt_token_ids": [1, 2]}]}),
            "no ids": JSONResponse({"choices": [self._choice(body, [5, END]) | {"token_ids": None}]}),
            "too few logprobs": JSONResponse(
                {"choices": [self._choice(body, [5, END]) | {"logprobs": {"token_logprobs": [-1.0]}}]}
            ),
            "error 500": JSONResponse({"error": {"message": "CUDA error: out of luck"}}, 500),
            "away": PlainTextResponse("upstream is away", 503),
            "error 400": JSONResponse({"error": {"message": "grammar is too complex"}}, 400),
        }
        if self.fault in faults and body["max_tokens"] > 1:
            return faults[self.fault]
        count = min(self.tokens, body["max_tokens"])
        ids = [*range(10, 10 + count), *([END] if count < body["max_tokens"] else [])]
        if self.script and body["max_tokens"] > 1:
            ids = self.script.pop(0)
        if body.get("stream"):
            return StreamingResponse(self._events(body, ids), media_type="text/event-stream")
        self.running += 1
        try:
            for _ in ids:
                await asyncio.sleep(self.pause_s)
                if await request.is_disconnected():
                    self.aborted += 1
                    return Response(status_code=499)
        finally:
            self.running -= 1
        return JSONResponse({"choices": [self._choice(body, ids, n) for n in range(body.get("n", 1))]})

    async def _events(self, body: dict[str, Any], ids: list[int]) -> AsyncIterator[str]:
        self.running += 1
        done = 0
        try:
            for n, token in enumerate(ids):
                await asyncio.sleep(self.pause_s)
                if self.fault == "dies in the middle" and n == 2:
                    return
                if self.fault == "garbage in the middle" and n == 2:
                    yield "data: {not json\n\n"
                    return
                if self.fault == "error in the middle" and n == 2:
                    yield f"data: {json.dumps({'error': {'message': 'engine died'}})}\n\n"
                    return
                choices = [self._choice(body, [token], number) for number in range(body.get("n", 1))]
                for choice in choices:
                    choice["finish_reason"] = ("stop" if token == END else "length") if n == len(ids) - 1 else None
                    if n:
                        choice.pop("prompt_token_ids")
                yield f"data: {json.dumps({'choices': choices})}\n\n"
                done = n + 1
            yield "data: [DONE]\n\n"
        finally:
            self.running -= 1
            self.aborted += done < len(ids) and not self.fault

    def _choice(self, body: dict[str, Any], ids: list[int], index: int = 0) -> dict[str, Any]:
        texts = ["<|im_end|>" if i == END else WORDS[i % len(WORDS)] for i in ids]
        return {
            "index": index,
            "text": self.spell(ids) if self.spell is not None else "".join(texts),
            "token_ids": ids,
            "prompt_token_ids": None if self.fault == "no prompt" else body["prompt"],
            "logprobs": {"tokens": texts, "token_logprobs": [-0.5] * len(ids), "top_logprobs": None},
            "finish_reason": "stop" if ids and ids[-1] == END else "length",
        }

    def _scored(self, body: dict[str, Any]) -> Response:
        """Every logprob is -1, under the weights or the adapter `v0003` -9."""
        value = -9.0 if self.weights.endswith("v0003") or body["model"].endswith("v0003") else -1.0
        rows = [
            {"prompt_logprobs": [None, *({str(token): {"logprob": value}} for token in prompt[1:])]}
            for prompt in body["prompt"]
        ]
        return JSONResponse({"choices": rows})


@contextmanager
def run_app(app: FastAPI, port: int) -> Iterator[uvicorn.Server]:
    """Serves `app` from a thread until left; then as on SIGTERM."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        threading.Event().wait(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def faulty_servers(count: int = 1) -> Iterator[list[FaultyVllm]]:
    stack = []
    try:
        for _ in range(count):
            server, (port, _) = FaultyVllm(), free_ports()
            server.url = f"http://127.0.0.1:{port}"
            stack.append((server, run_app(server.app(), port)))
            stack[-1][1].__enter__()
        yield [server for server, _ in stack]
    finally:
        for _, running in reversed(stack):
            running.__exit__(None, None, None)


@contextmanager
def gateway_over(log: Log, settings: Settings) -> Iterator[tuple[str, Gateway]]:
    """The real gateway before the servers of `settings.server.urls`; (its address, itself)."""
    ready: queue.Queue[tuple[uvicorn.Server, Gateway] | BaseException] = queue.Queue()

    async def run() -> None:
        try:
            async with started(log, settings) as (server, gateway):
                ready.put((server, gateway))
                await server.serve()
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    outcome = ready.get(timeout=30)
    if isinstance(outcome, BaseException):
        raise outcome
    server, gateway = outcome
    while not server.started:
        threading.Event().wait(0.01)
    try:
        yield settings.gateway_url, gateway
    finally:
        server.should_exit = True
        thread.join(30)


def a_version(log: Log, home: Path, name: str, *, parent: str | None = "v0001", adapter: bool = False) -> str:
    """A version whose probe says -1 a token, as the stand-in does unless it holds v0003."""
    place = home / name
    place.mkdir()
    for file in prepare_bundled_model(MODEL).iterdir():
        (place / file.name).symlink_to(file.resolve())
    if adapter:
        (place / "adapter_config.json").write_text("{}")
    (place / "probe.json").write_text(json.dumps({"ids": [[1, 2, 3]], "logprobs": [[-1.0, -1.0]]}))
    add_version(log, name, parent=parent, path=str(place), files={})
    return str(place)


@contextmanager
def one_stand_in(home: Path, max_loras: int = 0, **gateway: Any) -> Iterator[tuple[str, Gateway, Log, FaultyVllm]]:
    """(address, gateway, log, stand-in): the bundled model's renderer is v0001, which is live and has no probe."""
    (port, _), (_, server_port) = free_ports(), free_ports()
    with faulty_servers() as (vllm,):
        server = {"port": server_port, "urls": [vllm.url], "max_model_len": 512, "start_timeout_s": 5}
        server |= {"max_loras": max_loras}
        settings = load_settings(home=home, gateway={"port": port, **gateway}, server=server)
        log = open_log(settings.url)
        add_version(log, "v0001", parent=None, path=str(prepare_bundled_model(MODEL).resolve()), files={})
        set_version_state(log, "v0001", VersionState.LIVE, "first")
        with gateway_over(log, settings) as (address, running):
            yield address, running, log, vllm
        log.close()
