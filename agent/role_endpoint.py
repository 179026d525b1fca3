"""One client for the roles judge, annotator, simulator and user: asks an OpenAI-compatible endpoint, counts the cost.

Bounds concurrency, rate, time and money; tries again by kind of error (agent/tries.py), each try within the rate.
Writes one model_call row for each question, answered or not: what its tries cost, or may have cost, together.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

import openai
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONObject, ResponseFormatJSONSchema
from openai.types.shared_params.reasoning_effort import ReasoningEffort
from pydantic import BaseModel, Field, ValidationError

from agent.role_errors import EndpointError, LimitReached
from agent.tries import Failure, estimated_tokens, may_be_billed, may_pass, pause_s
from store.database import Log
from store.endpoint_settings import Endpoint, Price
from store.model_calls import ModelCall, add_model_calls
from store.schema import storable
from store.vocabulary import ModelRole

CHARACTERS_PER_TOKEN = 2.5
"""To put money aside for a question before it is asked: fewer than any tokenizer of today needs for English or JSON."""


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
    """An answer: its text (may be empty), tokens and price, tries that may have been billed included."""

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
    estimated: int = 0
    """Of the calls, those of which some tokens are estimated: the endpoint did not say."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    """Of the calls whose price is known."""


@dataclass(frozen=True)
class _Question:
    messages: Sequence[ChatCompletionMessageParam]
    max_tokens: int
    response_format: ResponseFormatJSONObject | ResponseFormatJSONSchema | None
    seed: int | None
    temperature: float
    effort: ReasoningEffort
    subject: Subject

    @property
    def text(self) -> str:
        return "\n".join(str(message.get("content", "")) for message in self.messages)


@dataclass
class _Bill:
    """What the tries of one question cost, or may have cost."""

    usd: float | None
    """None where the price is not known."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False


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
            # The usual one, collected, would close its connections in whatever event loop runs then.
            http_client=openai.DefaultAsyncHttpxClient(),
        )
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)
        self._next_start = 0.0
        self._random = Random()

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
        chosen = self.settings.temperature if temperature is None else temperature
        question = _Question(messages, max_tokens, response_format, seed, chosen, effort, subject)
        async with self._slots:
            # Not before there is a slot: what only waits must not use up the limit.
            reserved = await self._reserve(question)
            try:
                await asyncio.sleep(self._take_turn())
                return await self._ask(question)
            finally:
                self._reserved_usd -= reserved
                self._freed.set()

    async def _ask(self, question: _Question) -> Said:
        began = time.monotonic()
        bill = _Bill(usd=None if self._price is None else 0.0)
        try:
            async with asyncio.timeout(self.settings.timeout_s) as clock:
                text = await self._try(question, bill, clock)
            completion = self._read(text, question, bill)
        except TimeoutError as error:
            why = f"no answer within {self.settings.timeout_s:g} s"
            raise await self._failed(question, bill, began, why) from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the body"
            why = f"no chat completion: {where}: {problem['msg']}"
            raise await self._failed(question, bill, began, why) from error
        except openai.OpenAIError as error:
            why = f"{type(error).__name__}: {error}"[:500]
            raise await self._failed(question, bill, began, why) from error
        await self._record(question.subject, bill, began, None)
        choice = completion.choices[0]
        return Said(
            text=choice.message.content or "",
            prompt_tokens=bill.prompt_tokens,
            cached_tokens=bill.cached_tokens,
            completion_tokens=bill.completion_tokens,
            usd=bill.usd,
            truncated=choice.finish_reason == "length",
        )

    async def _try(self, question: _Question, bill: _Bill, clock: asyncio.Timeout) -> str:
        """The body of a response, after as many tries as it takes; raises what the last one ended with."""
        tries = 0
        while True:
            tries += 1
            failure: Failure
            try:
                return await self._send(question)
            except asyncio.CancelledError:
                # The deadline, or the end of the command: what was sent may be answered and billed all the same.
                self._charge_in_full(bill, question)
                raise
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                failure = error
            if may_be_billed(failure):
                self._charge_in_full(bill, question)
            pause = pause_s(failure, tries, self._random)
            left = (clock.when() or 0.0) - asyncio.get_running_loop().time()
            if tries > self.settings.retries or not may_pass(failure) or pause > left or self._is_spent:
                raise failure
            await asyncio.sleep(pause)
            wait = self._take_turn()
            clock.reschedule((clock.when() or 0.0) + wait)
            await asyncio.sleep(wait)

    async def _send(self, question: _Question) -> str:
        # Raw: a proxy's page or an error with status 200 is no completion, and the client's types would not say so.
        client = self._client.with_options(max_retries=0)
        response = await client.chat.completions.with_raw_response.create(
            model=self.settings.model,
            messages=[_sendable(message) for message in question.messages],
            response_format=openai.omit if question.response_format is None else question.response_format,
            max_tokens=question.max_tokens,
            temperature=question.temperature,
            seed=openai.omit if question.seed is None else question.seed,
            reasoning_effort=openai.omit if question.effort is None else question.effort,
        )
        return response.text

    def _read(self, body: str, question: _Question, bill: _Bill) -> _Completion:
        """The completion, charged; of what is none the prompt and what came back may be billed. Raises
        ValidationError."""
        sent = estimated_tokens(question.text)
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            self._charge(bill, sent, 0, estimated_tokens(body), estimated=True)
            raise
        usage = completion.usage
        if usage is None or not usage.prompt_tokens:
            said = estimated_tokens(completion.choices[0].message.content or "")
            self._charge(bill, sent, 0, usage.completion_tokens if usage else said, estimated=True)
        else:
            self._charge(bill, usage.prompt_tokens, _cached(usage), usage.completion_tokens)
        return completion

    async def _reserve(self, question: _Question) -> float:
        limit = self.settings.max_usd
        if not limit or self._price is None:
            return 0.0
        likely = self._price.usd(len(question.text) / CHARACTERS_PER_TOKEN, question.max_tokens)
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

    @property
    def _is_spent(self) -> bool:
        """Whether lost tries have used up what was put aside for the questions in flight."""
        limit = self.settings.max_usd
        return bool(limit) and self.spent_usd + self._reserved_usd > limit

    def _take_turn(self) -> float:
        """Seconds until the rate allows the try that asks for it."""
        if not self.settings.max_requests_per_minute:
            return 0.0
        now = time.monotonic()
        start = max(self._next_start, now)
        self._next_start = start + 60.0 / self.settings.max_requests_per_minute
        return start - now

    def _charge_in_full(self, bill: _Bill, question: _Question) -> None:
        """For a try that nobody knows the end of: it may have said as much as it was allowed to."""
        self._charge(bill, estimated_tokens(question.text), 0, question.max_tokens, estimated=True)

    def _charge(self, bill: _Bill, prompt: int, cached: int, completion: int, *, estimated: bool = False) -> None:
        bill.prompt_tokens += prompt
        bill.cached_tokens += cached
        bill.completion_tokens += completion
        bill.estimated |= estimated
        spent = self.spent
        spent.prompt_tokens += prompt
        spent.cached_tokens += cached
        spent.completion_tokens += completion
        if self._price is not None:
            usd = self._price.usd(prompt, completion, cached)
            bill.usd = (bill.usd or 0.0) + usd
            spent.usd += usd

    async def _failed(self, question: _Question, bill: _Bill, began: float, why: str) -> EndpointError:
        await self._record(question.subject, bill, began, why)
        return EndpointError(f"{self._role} {self.name}: {why}")

    async def _record(self, subject: Subject, bill: _Bill, began: float, error: str | None) -> None:
        self.spent.calls += 1
        self.spent.failed += error is not None
        self.spent.estimated += bill.estimated
        if self._log is None:
            return
        call = ModelCall(
            role=self._role,
            model=self.name,
            prompt_hash=subject.prompt_hash,
            prompt_tokens=bill.prompt_tokens,
            cached_tokens=bill.cached_tokens,
            completion_tokens=bill.completion_tokens,
            usd=bill.usd,
            estimated=bill.estimated,
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
