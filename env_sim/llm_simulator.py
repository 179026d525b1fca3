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

import openai

from env_sim.simulator import SimulatorError
from store.records import RecordedCall, Scenario, ToolSpec, canonical_json
from store.settings import Endpoint

PROMPT_FILE = Path(__file__).parent / "prompts" / "simulate_tool.md"
DRAWS = 3


class LlmSimulator:
    """Answers calls through `endpoint`; one object is shared by all rollouts of an event loop.

    An answer is kept for (scenario, seed, tool, canonical arguments), so that the dialogues of a group live in one
    world; concurrent equal calls wait for one answer. Kept in memory: a process started again asks again.

    `shown_chars` bounds what is shown of recordings and history, each, so that small context windows suffice.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        shown_chars: int = 3000,
        max_tokens: int = 512,
        client: openai.AsyncOpenAI | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._client = client or openai.AsyncOpenAI(
            base_url=endpoint.base_url, api_key=endpoint.api_key, timeout=endpoint.timeout_s, max_retries=0
        )
        self._prompt = PROMPT_FILE.read_text()
        self._shown_chars = shown_chars
        self._max_tokens = max_tokens
        self._answers: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(endpoint.max_concurrency)

    @property
    def provenance(self) -> dict[str, str]:
        return {"model": self._endpoint.model, "prompt_hash": hashlib.sha256(self._prompt.encode()).hexdigest()}

    async def answer(
        self, scenario: Scenario, seed: int, spec: ToolSpec, arguments: dict[str, Any], history: list[RecordedCall]
    ) -> str:
        """The response as compact JSON text.

        Raises SimulatorError when the endpoint fails, gives no JSON object in three draws, or takes longer than the
        endpoint's `timeout_s` for all of them.
        """
        key = canonical_json([scenario.hash, seed, spec.name, arguments])
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._answers:
                messages = self._messages(scenario, spec, arguments, history)
                where = f"simulator {self._endpoint.base_url}"
                try:
                    async with self._slots, asyncio.timeout(self._endpoint.timeout_s):
                        self._answers[key] = await self._draw(spec, messages, _seed_of(key))
                except TimeoutError as error:
                    raise SimulatorError(
                        f"{where} did not answer {spec.name} in {self._endpoint.timeout_s} s"
                    ) from error
                except openai.OpenAIError as error:
                    raise SimulatorError(f"{where} failed on {spec.name}: {error}") from error
        return self._answers[key]

    async def _draw(self, spec: ToolSpec, messages: list[dict[str, str]], seed: int) -> str:
        said = ""
        for draw in range(DRAWS):
            completion = await self._client.chat.completions.create(  # type: ignore[call-overload]
                model=self._endpoint.model,
                messages=messages,
                response_format=_response_format(spec),
                max_tokens=self._max_tokens,
                # The likeliest answer first; only a draw that was no JSON object is worth sampling again.
                temperature=0.0 if draw == 0 else 0.7,
                seed=seed + draw,
            )
            said = completion.choices[0].message.content or ""
            try:
                value = json.loads(said)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict):
                return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        raise SimulatorError(
            f"simulator {self._endpoint.model} gave no JSON object for {spec.name} in {DRAWS} draws; "
            f"the last began {said[:80]!r}"
        )

    def _messages(
        self, scenario: Scenario, spec: ToolSpec, arguments: dict[str, Any], history: Sequence[RecordedCall]
    ) -> list[dict[str, str]]:
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


def _response_format(spec: ToolSpec) -> dict[str, Any]:
    if spec.response_schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": f"{spec.name}_response"[:64], "schema": spec.response_schema},
    }


def _seed_of(key: str) -> int:
    """A sampling seed below 2**31, which every server takes."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
