"""Answers in OpenAI's form: completions, chunks, logprobs, usage."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson


class TokenLogprob(NamedTuple):
    """A sampled token as text, its logprob (nats), and the likeliest alternatives at its place."""

    token: str
    logprob: float
    top: Sequence[tuple[str, float]] = ()

    def as_openai(self) -> dict[str, Any]:
        return _entry(self.token, self.logprob) | {"top_logprobs": [_entry(*other) for other in self.top]}


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "surrogatepass"))}


class Head(NamedTuple):
    """What all chunks of one answer share."""

    identifier: str
    version: str
    created: int

    @classmethod
    def new(cls, version: str) -> "Head":
        return cls("chatcmpl-" + uuid.uuid4().hex[:24], version, int(time.time()))

    def dumped(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": f"policy@{self.version}",
            "system_fingerprint": self.version,
        }


def chat_answer(head: Head, choices: Sequence[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
    return head.dumped("chat.completion") | {"choices": list(choices), "usage": usage}


def answer_choice(
    index: int, message: dict[str, Any], finish: str | None, logprobs: Sequence[TokenLogprob] | None
) -> dict[str, Any]:
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs_of(logprobs)}


def chat_chunk(
    head: Head,
    index: int,
    delta: dict[str, Any],
    finish: str | None = None,
    logprobs: Sequence[TokenLogprob] | None = None,
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs_of(logprobs)}
    return head.dumped("chat.completion.chunk") | {"choices": [choice]}


def usage_chunk(head: Head, usage: dict[str, int]) -> dict[str, Any]:
    return head.dumped("chat.completion.chunk") | {"choices": [], "usage": usage}


def logprobs_of(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": [token.as_openai() for token in tokens], "refusal": None}


def usage_of(prompt: int, sampled: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}


def json_bytes(value: dict[str, Any]) -> bytes:
    """JSON text. Half a surrogate pair, which orjson refuses, is escaped."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def event_line(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"
