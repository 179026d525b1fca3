"""The gateway: every request to the policy is rendered once, sent to vLLM as ids, and recorded before it is answered.

What happens between a request in OpenAI's form and its answer; the addresses are in `gateway_app`.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from agent.addresses import new_session, trajectory_id
from agent.admission import Admission
from agent.call_form import MOST_CALLS, unenforceable
from agent.completions import CallId, CompletionReader, ParsedCall
from agent.conversations import Conversations, as_openai_message
from agent.fleet import Fleet
from agent.openai_answers import Head, answer_choice, chat_answer, chat_chunk, usage_chunk, usage_of
from agent.openai_form import ApiError, ChatRequest
from agent.recording import Asked, Recorder
from agent.rendering import Renderer, RenderingError, fewest_tokens
from agent.sampling import Sampled, Task, sample, sample_stream, task_of
from agent.vllm_client import ServerError
from store.database import Log
from store.settings import Settings

CALL_ID_LENGTH = 64
"""As long as the log keeps them."""


class Gateway:
    """What the routes call. Holds the dialogues' contexts and the writer of the log."""

    def __init__(self, log: Log, fleet: Fleet, renderer: Renderer, settings: Settings) -> None:
        self.log = log
        self.fleet = fleet
        self.renderer = renderer
        self.settings = settings.gateway
        self.max_len = settings.server.max_model_len
        self.admission = Admission(settings.gateway.max_in_flight, settings.gateway.max_waiting)
        self._conversations = Conversations(log)
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
                message = self._message(asked, choice)
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
            ids = [call_ids() for _ in choices]
            readers = [self._reader(asked, call_id) for call_id in ids]
            head: Head | None = None
            try:
                async for index, piece, version in sample_stream(self.fleet, task, choices):
                    if head is None:
                        head = Head.new(version)
                        for n in range(len(readers)):
                            yield chat_chunk(head, n, {"role": "assistant", "content": ""})
                    deltas = readers[index].feed(piece.ids, piece.text)
                    if request.logprobs and piece.tokens:
                        yield chat_chunk(head, index, {}, logprobs=piece.tokens)
                    for delta in deltas:
                        yield chat_chunk(head, index, delta)
            except (asyncio.CancelledError, GeneratorExit):
                messages = [recorded_message(reader, call_id) for reader, call_id in zip(readers, ids, strict=True)]
                await self._recorder.cut_off(asked, choices, messages, clock)
                raise
            except ServerError as error:
                await self._recorder.server_failed(asked, error)
                raise
            head = head or Head.new(self.fleet.live_version)
            for index, (choice, reader) in enumerate(zip(choices, readers, strict=True)):
                for delta in reader.feed((), "", final=True):
                    yield chat_chunk(head, index, delta)
                message = recorded_message(reader, ids[index])
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
        refuse_unless_possible(self.renderer, request)
        if (least := fewest_tokens(self.renderer, messages)) >= self.max_len:  # megabytes would hold up everybody else
            raise _too_long(f"at least {least:,}", self.max_len)
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
        if len(prompt.ids) >= self.max_len:
            raise _too_long(str(len(prompt.ids)), self.max_len)
        return Asked(request, session, agent, trajectory, conversation, prompt, began)

    def _task(self, asked: Asked) -> Task:
        request, form = asked.request, self.renderer.call_form
        stop_ids = [*self.renderer.stop_ids]
        grammar = None
        most = 1 if request.one_call else MOST_CALLS
        if form is not None and request.forced_tools:
            grammar = form.grammar(request.forced_tools, most)
        elif form is not None and request.offered_tools and request.answer_schema is not None:
            grammar = form.calls_or_json([t["function"] for t in request.offered_tools], request.answer_schema, most)
        elif request.one_call and self.renderer.call_end_id is not None:
            # Not under a grammar: vLLM takes stop tokens out of what that may write.
            stop_ids.append(self.renderer.call_end_id)
        room = self.max_len - len(asked.prompt_ids)
        return task_of(asked.session, request, asked.prompt_ids, room, stop_ids, grammar)

    def _reader(self, asked: Asked, call_id: CallId) -> CompletionReader:
        request = asked.request
        cut_by_text = request.stop is not None
        return self.renderer.reader(call_id, asked.prompt_ids, request.offered_tools, cut_by_text=cut_by_text)

    def _message(self, asked: Asked, choice: Sampled) -> dict[str, Any]:
        call_id = call_ids()
        reader = self._reader(asked, call_id)
        reader.feed(choice.ids, choice.text, final=True)
        return recorded_message(reader, call_id)


def _too_long(tokens: str, context: int) -> ApiError:
    message = f"the prompt has {tokens} tokens, the model's context is {context}"
    return ApiError(400, message, "context_length_exceeded", param="messages")


def refuse_unless_possible(renderer: Renderer, request: ChatRequest) -> None:
    """What the model's format cannot do is refused, never left out silently (invariant 7). Raises ApiError (400)."""
    name, form = renderer.name, renderer.call_form
    if request.offered_tools and not renderer.reads_calls:
        message = (
            "the model's chat template writes no tool calls that could be read back: set model.renderer to its "
            "format, or leave tools out"
        )
        raise ApiError(400, message, "unsupported_tools", param="tools")
    if request.forced_tools and form is None:
        message = f"there is no grammar for tool calls of the format {name!r}: tool_choice can be auto or none"
        raise ApiError(400, message, "unsupported_tool_choice", param="tool_choice")
    if request.offered_tools and request.grammar is not None:
        if form is None:
            message = (
                f"there is no grammar for tool calls of the format {name!r}, so under response_format json no tool "
                "could be called: set tool_choice to none, or leave response_format out"
            )
            raise ApiError(400, message, "unsupported_response_format", param="response_format")
        if keyword := unenforceable(request.answer_schema):
            message = f"the schema of response_format uses {keyword}, which a grammar cannot enforce: leave it out"
            raise ApiError(400, message, "unsupported_schema", param="response_format")
    if request.offered_tools and request.one_call and renderer.call_end_id is None:
        message = f"calls of the format {name!r} cannot be ended after the first: parallel_tool_calls must be true"
        raise ApiError(400, message, "unsupported_parallel_tool_calls", param="parallel_tool_calls")
    for function in request.forced_tools:
        if keyword := unenforceable(function.get("parameters")):
            message = (
                f"the schema of {function['name']!r} uses {keyword}, which a grammar cannot enforce: leave it out, "
                "or let tool_choice be auto"
            )
            raise ApiError(400, message, "unsupported_schema", param="tools")


def recorded_message(reader: CompletionReader, call_id: CallId) -> dict[str, Any]:
    """What was read as the log keeps it: content, reasoning, tool calls with ids."""
    parsed = reader.completion()
    calls = [{"id": call_id(n, c), "name": c.name, "arguments": c.arguments} for n, c in enumerate(parsed.calls)]
    return {"content": parsed.content, "reasoning": parsed.reasoning, "tool_calls": calls}


def call_ids() -> CallId:
    """Ids for the calls of one answer: unique, and with the policy's own one in front where its format writes one."""
    stem = uuid.uuid4().hex[:12]

    def name(index: int, call: ParsedCall) -> str:
        own = f"{call.native_id}/{stem}{index}"
        return own if call.native_id and len(own) <= CALL_ID_LENGTH else f"call_{stem}{index}"

    return name


def _finish(message: dict[str, Any], finish: str | None) -> str | None:
    return "tool_calls" if message["tool_calls"] and finish == "stop" else finish


def _public(message: dict[str, Any]) -> dict[str, Any]:
    answer = as_openai_message(message)
    if message["reasoning"]:
        answer["reasoning_content"] = message["reasoning"]
    return answer
