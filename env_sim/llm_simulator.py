"""Tool responses from an LLM behind any OpenAI-compatible endpoint (CM2 pipeline, step 6); reads a prompt file.

The prompt is `prompts/simulate_tool.md`, addressed by the SHA-256 of its text. The model sees the tool's schema, the
scenario's recordings as examples and this rollout's own history, and must answer with a JSON object.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONObject, ResponseFormatJSONSchema

from agent.role_endpoint import RoleEndpoint, Subject
from agent.role_errors import EndpointError, LimitReached
from env_sim.simulator import SimulatorError
from store.records import RecordedCall, Scenario, ToolSpec, canonical_json
from store.settings import Settings
from store.vocabulary import ModelRole

PROMPT_FILE = Path(__file__).parent / "prompts" / "simulate_tool.md"
DRAWS = 3


def make_simulator(settings: Settings) -> "LlmSimulator | None":
    """The simulator of the settings; None without a `[simulator]`. What it costs is not logged."""
    endpoint = settings.simulator
    if endpoint is None:
        return None
    price = settings.prices.get(endpoint.model)
    return LlmSimulator(RoleEndpoint(ModelRole.SIMULATOR, endpoint, price=price))


class LlmSimulator:
    """Answers calls through `endpoint`; one object is shared by all rollouts of an event loop.

    An answer is kept for (scenario, seed, tool, canonical arguments), so that the dialogues of a group live in one
    world; concurrent equal calls wait for one answer. Kept in memory: a process started again asks again.

    `shown_chars` bounds what is shown of recordings and history, each, so that small context windows suffice.
    """

    def __init__(
        self,
        endpoint: RoleEndpoint,
        *,
        shown_chars: int = 3000,
        max_tokens: int = 512,
    ) -> None:
        self._endpoint = endpoint
        self._prompt = PROMPT_FILE.read_text()
        self._prompt_hash = hashlib.sha256(self._prompt.encode()).hexdigest()
        self._shown_chars = shown_chars
        self._max_tokens = max_tokens
        self._answers: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def provenance(self) -> dict[str, str]:
        return {"model": self._endpoint.name, "prompt_hash": self._prompt_hash}

    async def answer(
        self, scenario: Scenario, seed: int, spec: ToolSpec, arguments: dict[str, Any], history: list[RecordedCall]
    ) -> str:
        """The response as compact JSON text.

        Raises SimulatorError when the endpoint fails, takes longer than its `timeout_s`, may not be asked any more, or
        gives no JSON object in three draws.
        """
        key = canonical_json([scenario.hash, seed, spec.name, arguments])
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._answers:
                messages = self._messages(scenario, spec, arguments, history)
                subject = Subject(prompt_hash=self._prompt_hash, scenario_hash=scenario.hash)
                try:
                    self._answers[key] = await self._draw(spec, messages, _seed_of(key), subject)
                except (EndpointError, LimitReached) as error:
                    where = self._endpoint.settings.base_url
                    raise SimulatorError(f"{spec.name} could not be answered by {where}: {error}") from error
        return self._answers[key]

    async def _draw(
        self, spec: ToolSpec, messages: Sequence[ChatCompletionMessageParam], seed: int, subject: Subject
    ) -> str:
        said = ""
        for draw in range(DRAWS):
            answer = await self._endpoint.ask(
                messages,
                max_tokens=self._max_tokens,
                response_format=_response_format(spec),
                seed=seed + draw,
                # The likeliest answer first; only a draw that was no JSON object is worth sampling again.
                temperature=0.0 if draw == 0 else 0.7,
                subject=subject,
            )
            said = answer.text
            try:
                value = json.loads(said)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict):
                return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        raise SimulatorError(
            f"simulator {self._endpoint.name} gave no JSON object for {spec.name} in {DRAWS} draws; "
            f"the last began {said[:80]!r}"
        )

    def _messages(
        self, scenario: Scenario, spec: ToolSpec, arguments: dict[str, Any], history: Sequence[RecordedCall]
    ) -> list[ChatCompletionMessageParam]:
        recorded = [call for turn in scenario.turns for step in turn.reference for call in step.calls]
        # The tool's own recordings show its form, so they are the last to be cut.
        recorded.sort(key=lambda call: call.name != spec.name)
        latest_first = self._shown(list(reversed(history)))
        sections = [
            ("tool", canonical_json(spec.as_openai()["function"])),
            ("recorded calls", "\n".join(self._shown(recorded)) or "none"),
            ("present dialogue", "\n".join(reversed(latest_first)) or "none"),
            ("new call", canonical_json({"name": spec.name, "arguments": arguments})),
        ]
        text = "\n\n".join(f"## {title}\n{body}" for title, body in sections)
        return [{"role": "system", "content": self._prompt}, {"role": "user", "content": text}]

    def _shown(self, calls: Sequence[RecordedCall]) -> list[str]:
        lines: list[str] = []
        room = self._shown_chars
        for call in calls:
            line = canonical_json({"name": call.name, "arguments": call.arguments, "response": call.response})
            room -= len(line)
            if room < 0:
                break
            lines.append(line)
        return lines


def _response_format(spec: ToolSpec) -> ResponseFormatJSONSchema | ResponseFormatJSONObject:
    if spec.response_schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": f"{spec.name}_response"[:64], "schema": spec.response_schema},
    }


def _seed_of(key: str) -> int:
    """A sampling seed below 2**31, which every server takes."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
