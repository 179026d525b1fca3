"""One client for the roles judge, annotator, simulator and user: asks an OpenAI-compatible endpoint, counts the cost.

Bounds concurrency, rate, time and money; tries again by kind of error (the client library's: lost connections,
timeouts, 408, 409, 429 with its Retry-After, 5xx). Writes one model_call row for each question, answered or not.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import openai
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONObject, ResponseFormatJSONSchema
from openai.types.shared_params.reasoning_effort import ReasoningEffort
from pydantic import BaseModel, Field, ValidationError

from store.database import Log
from store.endpoint_settings import Endpoint, Price
from store.model_calls import ModelCall, add_model_calls
from store.schema import storable
from store.vocabulary import ModelRole

CHARACTERS_PER_TOKEN = 2.5
"""To put money aside for a question before it is asked: fewer than any tokenizer of today needs for English or JSON."""


class EndpointError(RuntimeError):
    """The endpoint gave no usable answer: which one, why."""


class LimitReached(RuntimeError):
    """What the settings allow to spend at this endpoint is spent; nothing was asked."""


@dataclass(frozen=True)
class Subject:
    """What a question is about, for its model_call row."""

    prompt_hash: str | None = None
    scenario_hash: str | None = None
    trajectory_id: str | None = None
    turn_index: int | None = None
    items: int = 0


@dataclass(frozen=True)
class Said:
    """An answer: its text (may be empty), tokens and price."""

    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usd: float | None
    truncated: bool
    """Cut off by `max_tokens`."""


@dataclass
class Spent:
    """Sums over what one endpoint was asked."""

    calls: int = 0
    failed: int = 0
    """Of the calls, those without an answer."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    """Of the calls whose price is known."""


class _Details(BaseModel):
    cached_tokens: int | None = 0


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class RoleEndpoint:
    """Asks `endpoint` as `role`; one object serves one event loop.

    `log` None: nothing is recorded. `price` None: cost is unknown, and `endpoint.max_usd` is refused by the settings.
    """

    def __init__(
        self,
        role: ModelRole,
        endpoint: Endpoint,
        *,
        log: Log | None = None,
        price: Price | None = None,
        client: openai.AsyncOpenAI | None = None,
    ) -> None:
        self.name = endpoint.known_as
        self.settings = endpoint
        self.spent = Spent()
        self._reserved_usd = 0.0
        self._freed = asyncio.Event()
        self._role = role
        self._log = log
        self._price = price
        self._client = client or openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key,
            timeout=endpoint.timeout_s,
            max_retries=endpoint.retries,
        )
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)
        self._next_start = 0.0

    @property
    def spent_usd(self) -> float:
        return self.spent.usd

    async def ask(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        *,
        max_tokens: int,
        response_format: ResponseFormatJSONSchema | ResponseFormatJSONObject | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        effort: ReasoningEffort = None,
        subject: Subject = Subject(),
    ) -> Said:
        """Raises EndpointError if there is no answer within the deadline, LimitReached if it may not be asked.

        `temperature` None: the endpoint's; `effort` None: the model is told no reasoning effort. Waiting
        for a free slot, or for the rate, does not count as time.
        """
        async with self._slots:
            # Not before there is a slot: what only waits must not use up the limit.
            reserved = await self._reserve(messages, max_tokens)
            try:
                await self._wait_for_turn()
                return await self._ask(messages, max_tokens, response_format, seed, temperature, effort, subject)
            finally:
                self._reserved_usd -= reserved
                self._freed.set()

    async def _ask(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        max_tokens: int,
        response_format: ResponseFormatJSONSchema | ResponseFormatJSONObject | None,
        seed: int | None,
        temperature: float | None,
        effort: ReasoningEffort,
        subject: Subject,
    ) -> Said:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                completion = await self._send(messages, max_tokens, response_format, seed, temperature, effort)
        except TimeoutError as error:
            await self._record(subject, _Usage(), None, began, why := f"no answer within {self.settings.timeout_s:g} s")
            raise EndpointError(f"{self._role} {self.name}: {why}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the body"
            await self._record(subject, _Usage(), None, began, why := f"no chat completion: {where}: {problem['msg']}")
            raise EndpointError(f"{self._role} {self.name}: {why}") from error
        except openai.OpenAIError as error:
            await self._record(subject, _Usage(), None, began, why := f"{type(error).__name__}: {error}"[:500])
            raise EndpointError(f"{self._role} {self.name}: {why}") from error
        usage = completion.usage or _Usage()
        usd = self._cost(usage)
        await self._record(subject, usage, usd, began, None)
        choice = completion.choices[0]
        return Said(
            text=choice.message.content or "",
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=_cached(usage),
            completion_tokens=usage.completion_tokens,
            usd=usd,
            truncated=choice.finish_reason == "length",
        )

    async def _send(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        max_tokens: int,
        response_format: ResponseFormatJSONSchema | ResponseFormatJSONObject | None,
        seed: int | None,
        temperature: float | None,
        effort: ReasoningEffort,
    ) -> _Completion:
        # Raw: a proxy's page or an error with status 200 is no completion, and the client's types would not say so.
        response = await self._client.chat.completions.with_raw_response.create(
            model=self.settings.model,
            messages=[_sendable(message) for message in messages],
            response_format=openai.omit if response_format is None else response_format,
            max_tokens=max_tokens,
            temperature=self.settings.temperature if temperature is None else temperature,
            seed=openai.omit if seed is None else seed,
            reasoning_effort=openai.omit if effort is None else effort,
        )
        return _Completion.model_validate_json(response.text)

    async def _reserve(self, messages: Sequence[ChatCompletionMessageParam], max_tokens: int) -> float:
        limit = self.settings.max_usd
        if not limit or self._price is None:
            return 0.0
        characters = sum(len(str(message.get("content", ""))) for message in messages)
        likely = self._price.usd(characters / CHARACTERS_PER_TOKEN, max_tokens)
        # Questions in flight mostly cost less than was put aside for them: what they leave over may do for this one.
        while (
            self._reserved_usd > 0 and self.spent_usd + likely <= limit < self.spent_usd + self._reserved_usd + likely
        ):
            self._freed.clear()
            await self._freed.wait()
        if self.spent_usd + self._reserved_usd + likely > limit:
            raise LimitReached(
                f"{self._role} {self.name}: {self.spent_usd:.4f} of at most {limit:g} USD are spent (max_usd), and the "
                f"next question may cost {likely:.4f}"
            )
        self._reserved_usd += likely
        return likely

    async def _wait_for_turn(self) -> None:
        if not self.settings.max_requests_per_minute:
            return
        start = max(self._next_start, time.monotonic())
        self._next_start = start + 60.0 / self.settings.max_requests_per_minute
        await asyncio.sleep(start - time.monotonic())

    def _cost(self, usage: _Usage) -> float | None:
        if self._price is None:
            return None
        return self._price.usd(usage.prompt_tokens, usage.completion_tokens, _cached(usage))

    async def _record(
        self, subject: Subject, usage: _Usage, usd: float | None, began: float, error: str | None
    ) -> None:
        spent = self.spent
        spent.calls += 1
        spent.failed += error is not None
        spent.prompt_tokens += usage.prompt_tokens
        spent.cached_tokens += _cached(usage)
        spent.completion_tokens += usage.completion_tokens
        spent.usd += usd or 0.0
        if self._log is None:
            return
        call = ModelCall(
            role=self._role,
            model=self.name,
            prompt_hash=subject.prompt_hash,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=_cached(usage),
            completion_tokens=usage.completion_tokens,
            usd=usd,
            latency_ms=1000 * (time.monotonic() - began),
            error=error,
            items=subject.items,
            scenario_hash=subject.scenario_hash,
            trajectory_id=subject.trajectory_id,
            turn_index=subject.turn_index,
        )
        await asyncio.to_thread(add_model_calls, self._log, [call])


def _sendable(message: ChatCompletionMessageParam) -> ChatCompletionMessageParam:
    """Lone surrogates, which a policy may well write, are no UTF-8: no request can carry them."""
    content = message.get("content")
    if not isinstance(content, str):
        return message
    return cast(ChatCompletionMessageParam, {**message, "content": storable(content)})


def _cached(usage: _Usage) -> int:
    return (usage.prompt_tokens_details.cached_tokens or 0) if usage.prompt_tokens_details else 0
