"""The gateway: every request to the policy is rendered once, sent to vLLM as ids, and recorded before it is answered.

What happens between a request in OpenAI's form and its answer; the addresses are in `gateway_app`.
"""

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from agent.addresses import new_session, trajectory_id
from agent.admission import Admission
from agent.completions import StreamParser, parse_completion
from agent.conversations import Conversations, as_openai_message
from agent.fleet import Fleet
from agent.openai_answers import Head, answer_choice, chat_answer, chat_chunk, usage_chunk, usage_of
from agent.openai_form import ApiError, ChatRequest, call_schema
from agent.recording import Asked, Recorder
from agent.rendering import Renderer, RenderingError
from agent.sampling import Sampled, Task, sample, sample_stream, task_of
from agent.vllm_client import ServerError
from store.database import Log
from store.settings import Settings

CALL_TAG = "<tool_call>"


class Gateway:
    """What the routes call. Holds the dialogues' contexts and the writer of the log."""

    def __init__(self, log: Log, fleet: Fleet, renderer: Renderer, settings: Settings) -> None:
        self.log = log
        self.fleet = fleet
        self.renderer = renderer
        self.settings = settings.gateway
        self.max_len = settings.server.max_model_len
        self.admission = Admission(settings.gateway.max_in_flight, settings.gateway.max_waiting)
        self._conversations = Conversations(log, renderer)
        self._recorder = Recorder(log, fleet, renderer, self._conversations, settings.gateway.request_timeout_s)

    async def close(self) -> None:
        """Lets what runs end and writes what waits; the servers are for whoever started them to stop."""
        await self.admission.close(self.settings.shutdown_s)
        await self._recorder.close()

    async def answer(self, session: str | None, agent: str | None, request: ChatRequest) -> tuple[dict[str, Any], str]:
        """Samples, records and gives (the answer in OpenAI's form, session). Raises ApiError, ServerError, LogError."""
        async with self._in_time() as clock, self.admission.place():
            asked = await self._ask(session, agent, request)
            task = self._task(asked)
            try:
                choices = await sample(self.fleet, task)
            except asyncio.CancelledError:
                await self._recorder.cut_off(asked, (), (), clock)
                raise
            except ServerError as error:
                await self._recorder.server_failed(asked, error)
                raise
            answers = []
            for index, choice in enumerate(choices):
                message = parsed_message(asked.forced + self._without_end(choice.text), call_ids())
                await self._recorder.record(asked, choice, message)
                answers.append(
                    answer_choice(
                        index,
                        _public(message),
                        _finish(message, choice.finish),
                        choice.tokens if request.logprobs else None,
                    )
                )
        head = Head.new(choices[-1].spans[-1][0] if choices[-1].spans else self.fleet.live_version)
        usage = usage_of(len(asked.prompt_ids), sum(len(choice.ids) for choice in choices))
        return chat_answer(head, answers, usage), asked.session

    async def stream(
        self, session: str | None, agent: str | None, request: ChatRequest
    ) -> AsyncIterator[dict[str, Any] | str]:
        """Like `answer`: first the session's name, then chunks; the last ones come after the steps are recorded."""
        async with self._in_time() as clock, self.admission.place():
            asked = await self._ask(session, agent, request)
            yield asked.session
            task = self._task(asked)
            choices = [Sampled() for _ in range(request.n)]
            parsers = [StreamParser(call_ids()) for _ in choices]
            head: Head | None = None
            try:
                async for index, piece, version in sample_stream(self.fleet, task, choices):
                    if head is None:
                        head = Head.new(version)
                        for n, parser in enumerate(parsers):
                            yield chat_chunk(head, n, {"role": "assistant", "content": ""})
                            parser.feed(asked.forced)
                    deltas = parsers[index].feed(self._without_end(piece.text))
                    if request.logprobs and piece.tokens:
                        yield chat_chunk(head, index, {}, logprobs=piece.tokens)
                    for delta in deltas:
                        yield chat_chunk(head, index, delta)
            except (asyncio.CancelledError, GeneratorExit):
                texts = [asked.forced + self._without_end(choice.text) for choice in choices]
                messages = [parsed_message(text, call_ids()) for text in texts]
                await self._recorder.cut_off(asked, choices, messages, clock)
                raise
            except ServerError as error:
                await self._recorder.server_failed(asked, error)
                raise
            head = head or Head.new(self.fleet.live_version)
            for index, (choice, parser) in enumerate(zip(choices, parsers, strict=True)):
                for delta in parser.feed("", final=True):
                    yield chat_chunk(head, index, delta)
                message = parsed_message(parser.text, (call["id"] for call in parser.calls))
                await self._recorder.record(asked, choice, message)
                yield chat_chunk(head, index, {}, _finish(message, choice.finish))
            if request.stream_options and request.stream_options.include_usage:
                sampled = sum(len(choice.ids) for choice in choices)
                yield usage_chunk(head, usage_of(len(asked.prompt_ids), sampled))

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[asyncio.Timeout]:
        limit = self.settings.request_timeout_s
        try:
            async with asyncio.timeout(limit) as clock:
                yield clock
        except TimeoutError as error:
            raise ApiError(504, f"no answer within {limit:g} s", "timeout", "server_error", retry_after=1) from error

    async def _ask(self, session: str | None, agent: str | None, request: ChatRequest) -> Asked:
        began = time.perf_counter()
        messages, tools = request.dumped_messages(), request.offered_tools
        self.fleet.version_for(session or "", request.model)  # an unknown model is refused before anything is kept
        session = session or self._conversations.continued_by(messages, tools)
        if session is None:
            session = trajectory = new_session()
            conversation = self._conversations.start(trajectory)
        else:
            trajectory = trajectory_id(session, agent)
            conversation = await self._conversations.get(trajectory)
        try:
            prompt = conversation.prompt(self.renderer, messages, tools)
        except (RenderingError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise ApiError(400, f"messages or tools cannot be rendered: {error}", "invalid_messages") from error
        forced = ""
        if request.forced_tools:
            forced = CALL_TAG
            prompt = prompt.with_forced(self.renderer.encode(CALL_TAG))
        if len(prompt.ids) >= self.max_len:
            raise ApiError(
                400,
                f"the prompt has {len(prompt.ids)} tokens, the model's context is {self.max_len}",
                "context_length_exceeded",
                param="messages",
            )
        return Asked(request, session, agent, trajectory, conversation, prompt, forced, began)

    def _task(self, asked: Asked) -> Task:
        request = asked.request
        stop_ids = [self.renderer.end_of_turn_id]
        if not request.parallel_tool_calls and self._recorder.call_end_id is not None:
            stop_ids.append(self._recorder.call_end_id)
        grammar = call_schema(request.forced_tools) if request.forced_tools else None
        room = self.max_len - len(asked.prompt_ids)
        return task_of(asked.session, request, asked.prompt_ids, room, stop_ids, grammar)

    def _without_end(self, text: str) -> str:
        return text.removesuffix(self.renderer.end_of_turn)


def parsed_message(text: str, ids: Iterator[str]) -> dict[str, Any]:
    """Sampled text as the log keeps it: content, reasoning, tool calls with ids."""
    parsed = parse_completion(text)
    calls = [{"id": next(ids), "name": c.name, "arguments": c.arguments} for c in parsed.calls]
    return {"content": parsed.content, "reasoning": parsed.reasoning, "tool_calls": calls}


def call_ids() -> Iterator[str]:
    stem = uuid.uuid4().hex[:12]
    return (f"call_{stem}{n}" for n in itertools.count())


def _finish(message: dict[str, Any], finish: str | None) -> str | None:
    return "tool_calls" if message["tool_calls"] and finish == "stop" else finish


def _public(message: dict[str, Any]) -> dict[str, Any]:
    answer = as_openai_message(message)
    if message["reasoning"]:
        answer["reasoning_content"] = message["reasoning"]
    return answer


def renderer_of(fleet: Fleet) -> Renderer:
    return Renderer.from_dir(Path(fleet.live.server.model_dir))
