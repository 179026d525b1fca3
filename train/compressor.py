"""The compressor: has the thinking of reference dialogues shortened by an LLM (CM2 pipeline, step 2).

Writes a row for each dialogue when it is done, and model calls: a kill loses at most the dialogues in flight, the same
call goes on where it stood. The prompt is `prompts/compress.md`, addressed by the SHA-256 of its text.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from openai.types.chat import ChatCompletionMessageParam

from agent.role_endpoint import CHARACTERS_PER_TOKEN, RoleEndpoint, Subject
from agent.role_work import read_prompt
from reward.examination import Cost
from store.database import Log
from store.records import Scenario
from store.settings import CompressionSettings
from store.sft_sets import Compression, add_compression, compressions_by
from train.dialogue_work import DialogueReport
from train.thinking import Place, answer_format, passages, read_answer, show_task, why_untrue

PROMPT_FILE = Path(__file__).parent / "prompts" / "compress.md"
_NO_ANSWER = "the answer has no such passage"


class Compressor:
    def __init__(self, log: Log, endpoint: RoleEndpoint, settings: CompressionSettings, *, seed: int = 0) -> None:
        self.name = endpoint.name
        self.max_concurrency = endpoint.settings.max_concurrency
        self._log = log
        self._endpoint = endpoint
        self._settings = settings
        self._seed = seed
        self._prompt = read_prompt(settings.prompt, PROMPT_FILE, "compression.prompt")
        self.prompt_hash = hashlib.sha256(self._prompt.encode()).hexdigest()
        # One for all dialogues of the process: what is shown stays the same text, and the endpoint's cache holds.
        self._boundary = secrets.token_hex(8)

    def open_work(
        self, scenarios: Sequence[Scenario], *, again: bool = False
    ) -> tuple[list[Scenario], DialogueReport[Compression]]:
        """The scenarios to ask about, and a report that holds what is done."""
        before = {} if again else compressions_by(self._log, self.name, self.prompt_hash)
        report: DialogueReport[Compression] = DialogueReport()
        work = []
        for scenario in {one.hash: one for one in scenarios}.values():
            if (done := before.get(scenario.hash)) is not None:
                report.done[scenario.hash] = done
            if done is not None or not passages(scenario, self._settings.min_words):
                report.skipped += 1
            else:
                work.append(scenario)
        return work, report

    def estimate(self, scenario: Scenario) -> Cost:
        """If nothing goes back."""
        asked = passages(scenario, self._settings.min_words)
        shown = self._prompt + show_task(scenario, list(asked), self._boundary)
        return Cost(1, int(len(shown) / CHARACTERS_PER_TOKEN), 0, self._room(list(asked.values())))

    async def ask(self, scenario: Scenario, cost: Cost) -> Compression:
        """Asks and stores. Raises EndpointError or LimitReached, with nothing stored, where there is no answer."""
        asked = passages(scenario, self._settings.min_words)
        tools = [tool.name for tool in scenario.tools]
        taken: dict[Place, str] = {}
        problems: dict[Place, str] = {}
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": self._prompt},
            {"role": "user", "content": show_task(scenario, list(asked), self._boundary)},
        ]
        for attempt in range(1 + self._settings.attempts):
            open_ones = [place for place in asked if place not in taken]
            said = await self._endpoint.ask(
                messages,
                max_tokens=self._room([asked[place] for place in open_ones]),
                response_format=answer_format(open_ones),
                seed=self._seed + attempt,
                subject=Subject(prompt_hash=self.prompt_hash, scenario_hash=scenario.hash, items=len(open_ones)),
            )
            cost.add(said)
            answer = read_answer(said.text, open_ones)
            problems = {}
            for place in open_ones:
                shorter = answer.get(place)
                reason = _NO_ANSWER if shorter is None else why_untrue(asked[place], shorter, tools)
                if reason is None and shorter is not None:
                    taken[place] = shorter
                elif reason is not None:
                    problems[place] = reason
            if not problems:
                break
            reasons = "\n".join(f"{t}.{s}: {reason}" for (t, s), reason in problems.items())
            messages += [
                {"role": "assistant", "content": said.text or "{}"},
                {"role": "user", "content": f"These cannot be taken, write them again:\n{reasons}"},
            ]
        made = Compression(
            scenario.hash,
            self.name,
            self.prompt_hash,
            tuple((*place, text) for place, text in sorted(taken.items())),
            tuple((*place, reason) for place, reason in sorted(problems.items())),
        )
        await asyncio.to_thread(add_compression, self._log, made)
        return made

    def _room(self, originals: Sequence[str]) -> int:
        return sum(48 + int(len(text) / CHARACTERS_PER_TOKEN) for text in originals) + 64
