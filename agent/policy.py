"""The policy as a chat model: ChatOpenAI pointed at one session of the gateway; reads and writes nothing."""

import json
import os
from typing import Any

import openai
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, InvalidToolCall
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI

try:  # what the installed OpenAI client runs on
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef]

KEEPALIVE_S = 2.0
"""Idle connections are dropped after this long: well before the gateway does, since a request that meets a connection
which is just being closed fails in a way that cannot be told from one that was recorded."""


class PolicyChat(ChatOpenAI):
    """ChatOpenAI with two changes.

    Requests go to the SDK as `extra_body`. The SDK walks every message and tool schema of a request to rename fields
    that need no renaming: a third of the client's time in a rollout, and rollouts share their cores with the model.

    A tool call whose arguments are JSON but not an object, or hold what JSON text cannot (NaN, half a surrogate pair),
    becomes an invalid tool call like any other malformed one; ChatOpenAI raises on it.
    """

    def _get_request_payload(
        self, input_: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        payload: dict[str, Any] = super()._get_request_payload(input_, stop=stop, **kwargs)
        if "response_format" in payload:
            return payload  # goes another way through the SDK, which reads it
        kept: dict[str, Any] = {
            name: payload.pop(name) for name in ("stream", "extra_headers", "extra_query") if name in payload
        }
        extra = payload.pop("extra_body", None) or {}
        body = {**payload, **extra}
        return {"model": body["model"], "messages": [], **kept, "extra_body": body}

    def _create_chat_result(
        self, response: dict[str, Any] | openai.BaseModel, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        plain = response if isinstance(response, dict) else response.model_dump()
        broken_by_choice: list[list[InvalidToolCall]] = []
        for choice in plain.get("choices") or ():
            calls = choice["message"].get("tool_calls") or []
            usable = [call for call in calls if is_json_object(call["function"]["arguments"])]
            broken_by_choice.append(
                [
                    invalid_tool_call(
                        name=call["function"]["name"],
                        args=call["function"]["arguments"],
                        id=call["id"],
                        error="the arguments are no JSON object",
                    )
                    for call in calls
                    if call not in usable
                ]
            )
            choice["message"]["tool_calls"] = usable
        result = super()._create_chat_result(plain, generation_info)
        for generation, broken in zip(result.generations, broken_by_choice, strict=True):
            if isinstance(generation.message, AIMessage):
                generation.message.invalid_tool_calls = broken
        return result


def is_json_object(text: str) -> bool:
    """Whether `text` is a JSON object that can be written as UTF-8 again (an empty text counts as {})."""
    try:
        value = json.loads(text or "{}", parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def open_connections(timeout_s: float = 180.0) -> openai.DefaultAsyncHttpxClient:
    """A connection pool to share between the sessions of an event loop; `await pool.aclose()` when done."""
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=KEEPALIVE_S)
    return openai.DefaultAsyncHttpxClient(timeout=timeout_s, limits=limits)


def connect_policy(
    gateway_url: str,
    session: str,
    connections: openai.DefaultAsyncHttpxClient,
    *,
    model: str = "policy",
    temperature: float,
    max_tokens: int,
    timeout_s: float = 180.0,
) -> PolicyChat:
    """The policy in `session` (a trajectory id); for `ainvoke` and `astream` only.

    `model` is "policy" or names a version ("policy@v0007"). A failed request is not repeated: the gateway may have
    recorded it.
    """
    return PolicyChat(
        model=model,
        base_url=f"{gateway_url.rstrip('/')}/sessions/{session}/v1",
        api_key=os.environ.get("CHECKLOOP_TOKEN") or "none",
        temperature=temperature,
        max_tokens=max_tokens,
        max_retries=0,
        timeout=timeout_s,
        # It waits for each chunk with asyncio.wait_for, which in Python 3.11 forgets a cancellation that comes together
        # with the chunk: a stopped answer went on to its end. `timeout` bounds the same wait, chunk by chunk.
        stream_chunk_timeout=None,
        http_async_client=connections,
        # Clients of its own cost tens of ms (a TLS context) for every session; the synchronous one is never used.
        client=_NO_CLIENT,
        root_client=_NO_CLIENT,
    )


class _NoClient:
    """In the place of the synchronous client."""

    def __getattr__(self, name: str) -> Any:
        raise TypeError("the policy is asynchronous: use ainvoke or astream")


_NO_CLIENT = _NoClient()
