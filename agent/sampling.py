"""One request's sampling on a vLLM server, across swaps: prompt ids in, sampled ids with logprobs and versions out.

A swap may cut a request off. A stream goes on from the ids it had, under the weights that are there then; an answer
that is not streamed is sampled anew. Every sampled token keeps the version that sampled it.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.fleet import Fleet
from agent.openai_answers import TokenLogprob
from agent.openai_form import PASSED_ON, ApiError, ChatRequest
from agent.slot import Lease
from agent.vllm_client import BadAnswer, EventStream, RequestRefused, ServerError


@dataclass
class Sampled:
    """What the server returned for one choice. T = len(ids) = len(logprobs)."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Nats; NaN where the server gave none."""
    text: str = ""
    finish: str | None = None
    """"stop" or "length"; None while it goes on, or where it was cut off."""
    spans: list[tuple[str, int]] = field(default_factory=list)
    """(version, tokens), in order."""
    tokens: list[TokenLogprob] | None = None
    """With alternatives, if the request asks for logprobs."""

    def take(self, choice: dict[str, Any], version: str, detailed: bool) -> "Sampled":
        """Adds a choice of vLLM's answer or one chunk of it; gives the addition by itself. Raises BadAnswer."""
        try:
            piece = _read(choice, detailed)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadAnswer(f"vLLM answered a choice that cannot be read ({error!r}): {str(choice)[:200]}") from error
        self.ids += piece.ids
        self.logprobs += piece.logprobs
        self.text += piece.text
        self.finish = piece.finish or self.finish
        if piece.tokens is not None:
            self.tokens = [*(self.tokens or ()), *piece.tokens]
        if piece.ids:
            if self.spans and self.spans[-1][0] == version:
                self.spans[-1] = (version, self.spans[-1][1] + len(piece.ids))
            else:
                self.spans.append((version, len(piece.ids)))
        return piece


def _read(choice: dict[str, Any], detailed: bool) -> Sampled:
    ids = choice.get("token_ids") or []
    reported = choice.get("logprobs") or {}
    logprobs = reported.get("token_logprobs") or [math.nan] * len(ids)
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} token ids but {len(logprobs)} logprobs")
    tokens = None
    if detailed:
        tops = reported.get("top_logprobs") or [{}] * len(ids)
        tokens = [
            TokenLogprob(token, logprob, tuple((top or {}).items()))
            for token, logprob, top in zip(reported.get("tokens") or (), logprobs, tops, strict=False)
        ]
    return Sampled([int(i) for i in ids], list(logprobs), str(choice["text"]), choice.get("finish_reason"), [], tokens)


@dataclass(frozen=True)
class Task:
    """What is asked of the server: the prompt's ids and everything else of `POST /v1/completions`."""

    session: str
    model: str
    prompt_ids: Sequence[int]
    body: dict[str, Any]
    n: int
    detailed: bool
    continuable: bool
    """Whether a stream can go on under other weights in the middle."""
    movable: bool
    """Whether other weights may answer at all: not where an exact version is asked for."""


def task_of(
    session: str, request: ChatRequest, prompt_ids: Sequence[int], room: int, stop_ids: Sequence[int], grammar: Any
) -> Task:
    """`room`: tokens that the context has left; `grammar`: structural tag that the answer must follow, if any."""
    body: dict[str, Any] = {
        "max_tokens": min(request.token_limit or room, room),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "logprobs": (request.top_logprobs or 0) if request.logprobs else 0,
        "return_token_ids": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "stop_token_ids": list(stop_ids),
    }
    for name in ("seed", "stop", *PASSED_ON):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.n > 1:
        body["n"] = request.n
    if grammar is not None:
        body["structured_outputs"] = {"structural_tag": json.dumps(grammar)}
    elif request.grammar is not None:
        body["response_format"] = request.grammar
    guided = grammar is not None or request.grammar is not None
    return Task(
        session=session,
        model=request.model,
        prompt_ids=prompt_ids,
        body=body,
        n=request.n,
        detailed=request.logprobs,
        continuable=not guided and request.stop is None and request.n == 1 and request.seed is None,
        movable="@" not in request.model,
    )


async def sample(fleet: Fleet, task: Task) -> list[Sampled]:
    """All choices at once. Raises ApiError, ServerError."""
    while True:
        async with fleet.lease(task.session, task.model) as lease:
            raw = await _uncut(lease, task)
        if raw is None:
            continue
        choices = [Sampled() for _ in range(task.n)]
        try:
            found = raw["choices"]
            check_prompt(task.prompt_ids, found[0]["prompt_token_ids"])
            for choice in found:
                choices[choice.get("index", 0)].take(choice, lease.version, task.detailed)
        except (KeyError, IndexError, TypeError) as error:
            raise BadAnswer(f"vLLM's answer cannot be read ({error!r}): {str(raw)[:200]}") from error
        if any(choice.finish is None for choice in choices):
            raise BadAnswer(f"vLLM's answer has not {task.n} finished choices: {str(raw)[:200]}")
        return choices


async def sample_stream(
    fleet: Fleet, task: Task, choices: Sequence[Sampled]
) -> AsyncIterator[tuple[int, Sampled, str]]:
    """(choice index, what it added, version) as it comes; `choices` are filled. Raises ApiError, ServerError."""
    while any(choice.finish is None for choice in choices):
        before = choices[0].ids
        ids = [*task.prompt_ids, *before]
        left = task.body["max_tokens"] - len(before)
        if left <= 0:
            choices[0].finish = "length"
            return
        body = task.body | {"prompt": ids, "max_tokens": left, "stream": True}
        async with fleet.lease(task.session, task.model) as lease:
            try:
                async with lease.server.stream(body | {"model": lease.model}) as events:
                    async for index, choice in _choices(events, lease, task, ids):
                        yield index, choices[index].take(choice, lease.version, task.detailed), lease.version
            except RequestRefused as error:
                raise ApiError(400, f"vLLM refused the request: {error}", "invalid_request") from error
            except ServerError:
                if not lease.interrupted:
                    raise


async def _choices(
    events: EventStream, lease: Lease, task: Task, ids: Sequence[int]
) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    checked = False
    cut = events.cut if task.continuable and task.movable else None
    with lease.interruptible(cut):
        async for event in events:
            for choice in event.get("choices") or ():
                if not checked:
                    if (seen := choice.get("prompt_token_ids")) is None:
                        raise BadAnswer("vLLM streamed an answer without saying which prompt it saw")
                    check_prompt(ids, seen)
                    checked = True
                index = choice.get("index", 0)
                if not 0 <= index < task.n:
                    raise BadAnswer(f"vLLM streamed choice {index} of {task.n}")
                yield index, choice


async def _uncut(lease: Lease, task: Task) -> dict[str, Any] | None:
    """vLLM's answer, None if a swap cut it off."""
    body = task.body | {"prompt": list(task.prompt_ids), "model": lease.model}
    asking = asyncio.ensure_future(lease.server.complete(body))
    try:
        with lease.interruptible(asking.cancel if task.movable else None):
            return await asking
    except asyncio.CancelledError:
        this = asyncio.current_task()
        if not lease.interrupted or (this is not None and this.cancelling()):
            raise
        return None
    except RequestRefused as error:
        raise ApiError(400, f"vLLM refused the request: {error}", "invalid_request") from error
    finally:
        asking.cancel()


def check_prompt(sent: Sequence[int], seen: Sequence[int]) -> None:
    """Invariant 1, on every step: the server saw exactly the ids that are recorded."""
    if list(seen) != list(sent):
        raise BadAnswer(f"vLLM saw a prompt of {len(seen)} ids that are not the {len(sent)} that it was sent")
