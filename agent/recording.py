"""What the gateway writes: steps with the reason why they may not be trained on, and incidents."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.addresses import announcement
from agent.conversations import Conversation, Conversations, Prompt, as_openai_message
from agent.fleet import Fleet
from agent.openai_form import ChatRequest
from agent.rendering import Renderer
from agent.sampling import Sampled
from agent.vllm_client import BadAnswer, ServerError
from store.database import Log, LogError
from store.incidents import record_incident
from store.step_writer import StepWriter
from store.steps import StepToRecord
from store.vocabulary import IncidentKind, Untrainable

CANCELLED = "cancelled"
"""Finish reason of a step whose client went away, or whose deadline passed, in the middle."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A request with all that its answer needs."""

    request: ChatRequest
    session: str
    agent: str | None
    trajectory: str
    conversation: Conversation
    prompt: Prompt
    began: float

    @property
    def prompt_ids(self) -> list[int]:
        return self.prompt.ids


class Recorder:
    """Writes for one gateway; each step is committed before its answer's last byte leaves."""

    def __init__(
        self, log: Log, fleet: Fleet, renderer: Renderer, conversations: Conversations, timeout_s: float
    ) -> None:
        self._log = log
        self._fleet = fleet
        self._conversations = conversations
        self._timeout_s = timeout_s
        self._writer = StepWriter(log)
        self._ends = {*renderer.stop_ids, renderer.call_end_id}

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)

    async def record(
        self, asked: Asked, sampled: Sampled, message: dict[str, Any], reason: Untrainable | None = None
    ) -> None:
        """Waits until the step is committed; LogError if it is not, and then the answer is not given.

        Whoever is cancelled meanwhile goes on: what was sampled to its end is recorded, with all other choices.
        """
        request, prompt = asked.request, asked.prompt
        reason = reason or self._untrainable(request, sampled)
        spans = sampled.spans
        version = spans[0][0] if spans else self._fleet.version_for(asked.session, request.model)
        step = StepToRecord(
            trajectory_id=asked.trajectory,
            turn_index=prompt.turn_index,
            index=prompt.step_index,
            parent_id=prompt.parent.step_id if prompt.parent else None,
            user=prompt.user,
            version=version,
            version_spans=spans if len(spans) > 1 else None,
            new_messages=prompt.new_messages,
            tools_hash=prompt.tools_hash,
            message=message,
            delta_ids=prompt.delta_ids,
            sampled_ids=sampled.ids,
            logprobs=sampled.logprobs,
            context_tokens=len(prompt.ids),
            finish_reason=sampled.finish,
            latency_ms=(time.perf_counter() - asked.began) * 1000,
            sampling=request.sampling(),
            trainable=reason is None,
            untrainable_reason=reason,
            forked=prompt.forked,
            # Whose step goes on from another one is in the log already.
            announcement=announcement(asked.session, asked.agent) if prompt.parent is None else None,
        )
        cut_off = reason is Untrainable.CANCELLED
        goes_on = request.n == 1 and not cut_off and prompt.parent is not None
        continued = prompt.parent.go_on() if goes_on and prompt.parent is not None else []
        begun = not cut_off and prompt.begin()
        writing = asyncio.wrap_future(self._writer.submit(step))
        while not writing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
        try:
            step_id = writing.result()
        except LogError:
            for context in continued:
                context.continued = False
            if begun:
                prompt.take_back()
            raise
        key = asked.conversation.add(step_id, prompt, as_openai_message(message), sampled.ids, cut_off=cut_off)
        self._conversations.ended(asked.trajectory, key, asked.conversation)

    def _untrainable(self, request: ChatRequest, sampled: Sampled) -> Untrainable | None:
        """Decided here, at log time, never in the trainer."""
        if not sampled.ids:
            return Untrainable.NOTHING
        if request.grammar is not None or request.forced_tools:
            return Untrainable.GRAMMAR
        if request.temperature != 1.0:
            return Untrainable.TEMPERATURE
        if _reshaped(request):
            return Untrainable.DISTRIBUTION
        if any(math.isnan(logprob) for logprob in sampled.logprobs):
            return Untrainable.NO_LOGPROBS
        if sampled.ids[-1] not in self._ends:
            return Untrainable.TRUNCATED
        return None

    async def cut_off(
        self,
        asked: Asked,
        choices: Sequence[Sampled],
        messages: Sequence[dict[str, Any]],
        clock: asyncio.Timeout,
    ) -> None:
        """Client gone or deadline passed: what was sampled so far is a step that is not trained on; or an incident."""
        begun = [(choice, message) for choice, message in zip(choices, messages, strict=True) if choice.ids]
        if not begun:
            if clock.expired():
                await self._incident(asked, IncidentKind.DEADLINE, f"no answer in {self._timeout_s:g} s")
            else:
                await self._incident(asked, IncidentKind.CANCELLED, "the client went away before the answer")
            return
        for choice, message in begun:
            choice.finish = choice.finish or CANCELLED
            with contextlib.suppress(LogError):
                await _finished(self.record(asked, choice, message, Untrainable.CANCELLED))

    async def server_failed(self, asked: Asked, error: ServerError) -> None:
        kind = IncidentKind.BAD_ANSWER if isinstance(error, BadAnswer) else IncidentKind.SERVER_FAILED
        await self._incident(asked, kind, str(error))

    async def _incident(self, asked: Asked, kind: IncidentKind, detail: str) -> None:
        """Never in the way of the error that it records."""

        def write() -> None:
            try:
                record_incident(
                    self._log,
                    asked.trajectory,
                    kind,
                    detail,
                    version=self._fleet.live_version,
                    announcement=announcement(asked.session, asked.agent),
                )
            except LogError as error:
                logger.warning("an incident could not be recorded (%s): %s", error, detail)

        await _finished(asyncio.to_thread(write))


async def _finished(work: Any) -> None:
    """Awaits `work` to its end even where this task is being cancelled."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    task.result()


def _reshaped(request: ChatRequest) -> bool:
    neutral: dict[str, tuple[Any, ...]] = {
        "top_k": (None, -1, 0),
        "min_p": (None, 0.0),
        "repetition_penalty": (None, 1.0),
        "logit_bias": (None, {}),
    }
    penalties = (request.presence_penalty, request.frequency_penalty)
    return (
        request.top_p != 1.0
        or any(penalties)
        or any(getattr(request, name) not in values for name, values in neutral.items())
    )
