"""The filter: an LLM reads reference dialogues and flags the unfit ones (CM2 pipeline, step 1, second half).

With rising effort, several draws at each, and the first flag decides: most dialogues that are wrong cost one cheap
question. Writes a row for each dialogue that is decided, and model calls; a killed call goes on where it stood. The
prompt is `prompts/filter.md`, addressed by the SHA-256 of its text.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from openai.types.chat import ChatCompletionMessageParam

from agent.role_endpoint import CHARACTERS_PER_TOKEN, RoleEndpoint, Subject
from agent.role_errors import EndpointError
from agent.role_work import read_prompt
from reward.examination import Cost
from reward.guided_json import json_format
from store.database import Log
from store.records import Scenario
from store.settings import FilteringSettings
from store.sft_sets import Criticism, add_criticism, criticisms_by
from train.dialogue_work import DialogueReport
from train.thinking import show_dialogue

PROMPT_FILE = Path(__file__).parent / "prompts" / "filter.md"
ANSWER_TOKENS = 200
_THINKING_TOKENS = {"low": 1000, "medium": 4000, "high": 16000}
_FORMAT = json_format("fitness", {"problem": {"type": "string", "maxLength": 400}, "unfit": {"type": "boolean"}})


class DialogueCritic:
    def __init__(self, log: Log, endpoint: RoleEndpoint, settings: FilteringSettings, *, seed: int = 0) -> None:
        self.name = endpoint.name
        self.max_concurrency = endpoint.settings.max_concurrency
        self._log = log
        self._endpoint = endpoint
        self._settings = settings
        self._seed = seed
        self._prompt = read_prompt(settings.prompt, PROMPT_FILE, "filtering.prompt")
        procedure = json.dumps([list(settings.efforts), settings.draws])
        self.prompt_hash = hashlib.sha256(f"{procedure}\n{self._prompt}".encode()).hexdigest()
        """Of the prompt and of how often it is asked: another procedure decides anew."""
        # One for all dialogues of the process: what is shown stays the same text, and the endpoint's cache holds.
        self._boundary = secrets.token_hex(8)

    def open_work(
        self, scenarios: Sequence[Scenario], *, again: bool = False
    ) -> tuple[list[Scenario], DialogueReport[Criticism]]:
        """The scenarios to ask about, and a report that holds what is decided."""
        before = {} if again else criticisms_by(self._log, self.name, self.prompt_hash)
        unique = {one.hash: one for one in scenarios}
        report = DialogueReport({digest: before[digest] for digest in unique if digest in before})
        report.skipped = len(report.done)
        return [scenario for digest, scenario in unique.items() if digest not in before], report

    def estimate(self, scenario: Scenario) -> Cost:
        """Of a dialogue that nothing is found in."""
        calls = len(self._settings.efforts) * self._settings.draws
        shown = sum(len(str(message["content"])) for message in self._messages(scenario))
        room = self._settings.draws * sum(self._room(effort) for effort in self._settings.efforts)
        return Cost(calls, calls * int(shown / CHARACTERS_PER_TOKEN), 0, room)

    async def ask(self, scenario: Scenario, cost: Cost) -> Criticism:
        """Asks until the first flag and stores. Raises EndpointError or LimitReached, with nothing stored, where an
        answer is missing."""
        messages = self._messages(scenario)
        found = Criticism(scenario.hash, self.name, self.prompt_hash, "", "", 0)
        number = 0
        for effort in self._settings.efforts:
            for _ in range(self._settings.draws):
                number += 1
                said = await self._endpoint.ask(
                    messages,
                    max_tokens=self._room(effort),
                    response_format=_FORMAT,
                    seed=self._seed + number,
                    effort=effort or None,
                    subject=Subject(prompt_hash=self.prompt_hash, scenario_hash=scenario.hash, items=1),
                )
                cost.add(said)
                problem = _read(said.text)
                if problem is None:
                    raise EndpointError(f"filter {self.name}: no usable answer: {said.text[:200]!r}")
                found = Criticism(scenario.hash, self.name, self.prompt_hash, problem, effort, number)
                if problem:
                    break
            if found.problem:
                break
        await asyncio.to_thread(add_criticism, self._log, found)
        return found

    def _messages(self, scenario: Scenario) -> list[ChatCompletionMessageParam]:
        return [
            {"role": "system", "content": self._prompt},
            {"role": "user", "content": "\n".join(show_dialogue(scenario, self._boundary))},
        ]

    def _room(self, effort: str) -> int:
        return ANSWER_TOKENS + _THINKING_TOKENS.get(effort, 0)


def unfit_reasons(report: DialogueReport[Criticism], scenarios: Sequence[Scenario]) -> dict[str, str]:
    """By scenario hash, why it is left out: it was flagged, or nobody could say yet."""
    reasons = {
        digest: f"unfit by the LLM{f' at effort {found.effort}' if found.effort else ''} ([filter])"
        for digest, found in report.done.items()
        if found.problem
    }
    return reasons | {one.hash: "the LLM gave no answer ([filter])" for one in scenarios if one.hash not in report.done}


def _read(text: str) -> str | None:
    """What is wrong with the dialogue, empty if nothing is; None for an answer that does not say."""
    start, end = text.find("{"), text.rfind("}")
    try:
        document = json.loads(text[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("unfit"), bool):
        return None
    return (str(document.get("problem", "")).strip() or "it says no more") if document["unfit"] else ""
