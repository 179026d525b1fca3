"""What checkloop asks of a vLLM server over HTTP. Everything fails with ServerError, which says what happened.

aiohttp, not httpx: the gateway stands between every caller and the policy, and its hop is paid on every step.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson

SERVED_NAME = "policy"
HEALTH_TIMEOUT_S = 2.0
READ_BUFFER = 2**22
"""Bytes: one event of a stream may carry all ids of a long prompt."""


class ServerError(RuntimeError):
    """A vLLM server is not there, does not come up, died, or answers what it should not."""


class ConnectionLost(ServerError):
    """A vLLM server cannot be reached, or the connection to it broke: what answers there next may be another one."""


class Stuck(ConnectionLost):
    """A vLLM server did not end within its deadline what it was told to do; one that checkloop started is ended."""


class BadAnswer(ServerError):
    """A vLLM server answered something that is no answer."""


class RequestRefused(ServerError):
    """vLLM refused a request as wrong (status 400 or 422); its own words are the message."""


class VllmClient:
    """A server at `url`; the session belongs to the event loop that uses it first."""

    after_reload: tuple[str, ...] = ()
    """Methods of the worker to call once new weights are in."""

    def __init__(self, name: str, url: str, admin_timeout_s: float = 240.0) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self.admin_timeout_s = admin_timeout_s
        """For everything but sampling, which ends with its request: a stuck engine would keep the door closed."""
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
                read_bufsize=READ_BUFFER,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def healthy(self) -> bool:
        """Whether it says so within HEALTH_TIMEOUT_S."""
        try:
            return await self.says_healthy()
        except TimeoutError:
            return False

    async def says_healthy(self) -> bool:
        """False where it cannot be reached. Raises TimeoutError where it says nothing in time: busy, or stuck."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)
        try:
            async with self.session.get(f"{self.url}/health", timeout=timeout) as answer:
                return answer.status == 200
        except aiohttp.ServerTimeoutError as error:
            raise TimeoutError from error
        except aiohttp.ClientError:
            return False

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/completions`, not streamed."""
        return await self._ask("POST", "/v1/completions", body)

    async def warm_up(self) -> None:
        """Samples one token."""
        await self._tell("POST", "/v1/completions", {"model": SERVED_NAME, "prompt": [1], "max_tokens": 1})

    @asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator["EventStream"]:
        """`POST /v1/completions` as server-sent events. `EventStream.cut` ends it from elsewhere."""
        try:
            async with self.session.post(f"{self.url}/v1/completions", json=body) as answer:
                if answer.status != 200:
                    raise self._refusal(answer.status, "/v1/completions", await answer.text())
                yield EventStream(self.name, answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(error) from error

    async def reload(self, weights: Path) -> None:
        """Replaces the weights in place and empties the prefix cache. Call it with no request running."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}}
        await self._tell("POST", "/collective_rpc", body)
        await self.call_worker(*self.after_reload)
        # Answers 200 with success=false while requests still run: their blocks would carry old weights' keys.
        for _ in range(100):
            answer = await self._tell("POST", "/reset_prefix_cache", None)
            if answer.get("success", True):
                return
            await asyncio.sleep(0.05)
        raise ServerError(f"vLLM server {self.name!r} did not empty its prefix cache after a reload")

    async def call_worker(self, *methods: str) -> None:
        """Calls methods without arguments of vLLM's worker, one after the other."""
        for method in methods:
            await self._tell("POST", "/collective_rpc", {"method": method})

    async def load_adapter(self, name: str, path: Path) -> None:
        await self._tell("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    async def unload_adapter(self, name: str) -> None:
        await self._tell("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def adapters(self) -> list[str]:
        """Names of the adapters that are loaded, whoever loaded them."""
        answer = await self._tell("GET", "/v1/models", None)
        return [str(model["id"]) for model in answer.get("data", []) if model.get("parent") is not None]

    async def prompt_logprobs(self, prompts: Sequence[Sequence[int]], model: str = SERVED_NAME) -> list[list[float]]:
        """log p(token | tokens before) of every token after the first, for each prompt."""
        body = {
            "model": model,
            "prompt": [list(p) for p in prompts],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        answer = await self._tell("POST", "/v1/completions", body)
        values: list[list[float]] = []
        try:
            for choice, prompt in zip(answer["choices"], prompts, strict=True):
                rows = choice["prompt_logprobs"]
                values.append([rows[i][str(token)]["logprob"] for i, token in enumerate(prompt) if i > 0])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BadAnswer(f"vLLM server {self.name!r} gave no logprobs of the probe: {error!r}") from error
        return values

    async def _tell(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """`_ask` with a deadline. Raises Stuck past it."""
        try:
            async with asyncio.timeout(self.admin_timeout_s):
                return await self._ask(method, path, body)
        except TimeoutError as error:
            last = self.last_words()
            await self.give_up()
            raise Stuck(
                f"vLLM server {self.name!r} did not end {path} within {self.admin_timeout_s:g} s "
                f"(server.start_timeout_s): {last}"
            ) from error

    async def give_up(self) -> None:
        """Ends a stuck server, where that is ours to do."""

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            async with self.session.request(method, f"{self.url}{path}", json=body) as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise self._refusal(answer.status, path, text)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(error) from error
        if not text or not text.lstrip().startswith(("{", "[")):
            return {}
        try:
            value = orjson.loads(text)
        except ValueError as error:
            raise BadAnswer(f"vLLM server {self.name!r} answered no JSON on {path}: {text[:200]!r}") from error
        return value if isinstance(value, dict) else {}

    def last_words(self) -> str:
        """What the server itself said last, where that can be known."""
        return f"is {self.url} up?"

    def _lost(self, error: BaseException) -> ConnectionLost:
        return ConnectionLost(
            f"vLLM server {self.name!r} does not answer ({type(error).__name__}): {self.last_words()}"
        )

    def _refusal(self, status: int, path: str, text: str) -> ServerError:
        said = text[:500]
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(text)["error"]["message"]
        if status in (400, 422):
            return RequestRefused(said)
        # What stands before a server answers these while that is away; vLLM itself, once its engine is dead.
        kind = ConnectionLost if status in (502, 503, 504) else ServerError
        return kind(f"vLLM server {self.name!r} answered {status} on {path}: {said}")


class EventStream:
    """The data of a stream's events, in order, until `[DONE]`."""

    def __init__(self, name: str, answer: aiohttp.ClientResponse) -> None:
        self._name = name
        self._answer = answer

    def cut(self) -> None:
        """Closes the connection: vLLM aborts the request, and iterating ends or raises ServerError."""
        self._answer.close()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        async for line in self._answer.content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                return
            try:
                value = orjson.loads(data)
            except ValueError as error:
                raise BadAnswer(f"vLLM server {self._name!r} streamed no JSON: {data[:200]!r}") from error
            if "error" in value:
                raise ServerError(f"vLLM server {self._name!r} broke off: {value['error']}")
            yield value
        raise ServerError(f"vLLM server {self._name!r} broke off in the middle of an answer")
