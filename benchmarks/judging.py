"""The judge's calls and tokens against CM2's procedure, its agreement with one-item questions, its speed against vLLM.

Reference dialogues of the bundled worlds, whose items lose their checks, stand in a log in groups (the reference, and a
member with another reply); the bundled model judges them behind a real vLLM with its prefix cache emptied before each
mode. What such a small model says is worth little; what it is sent, what the server computes and how long that takes is
what counts here. Compared are turns of many steps and items, for the aims; beside them turns as they come, most of them
short, of which one call saves less; and the same with their checks, as the worlds write them, so that code decides what
it can before a model is asked. Whether one call for all items and one an item come to the same verdict is compared
on the verdicts as written, on turns as they come: of such a model hardly a PASS has a quote that proves it, and in long
dialogues it says FAIL throughout. Bundled dialogues are short beside
CM2's (up to 30 turns, 10,000 tokens), so that turns of several are put together.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from agent.role_endpoint import RoleEndpoint, Said, Spent
from benchmarks.judged_dialogues import as_they_come, fill, long_dialogues
from benchmarks.line import Line
from benchmarks.serving import serve
from reward.agreement import measure_agreement
from reward.judge import Judge
from reward.judging_plan import JudgingOptions
from reward.judging_report import JudgingReport
from reward.llm_judge import Dialogue, LlmJudge
from reward.panel import Panel
from store.agreement import Pair
from store.database import Log
from store.endpoint_settings import Endpoint
from store.vocabulary import JudgeMode, ModelRole, Outcome

TURNS = 12
"""Of a dialogue: what is computed for each of CM2's questions grows with it, ours does not."""
TIMED = 8
"""Turns of a dialogue whose judging is timed: with its group's other member as many as are asked at once."""
CONCURRENCY = 16
TURNS_OF_SPEED = 2
"""Times that the judge and vLLM alone take turns."""
ROOM = {JudgeMode.TURN: 80, JudgeMode.ITEM: 80, JudgeMode.PAPER: 8}
"""Tokens an item: the small model often fills a string until it is cut off. Of `paper` it only matters what is sent."""
STRING = 60


@dataclass(frozen=True)
class _Run:
    report: JudgingReport
    spent: Spent
    seconds: float
    conversations: dict[tuple[Any, ...], list[dict[str, Any]]]
    """Requests, in order, of each conversation."""


@dataclass(frozen=True)
class _Pace:
    tokens: int = 0
    seconds: float = 0.0

    @property
    def a_second(self) -> float:
        return self.tokens / self.seconds

    def __add__(self, other: "_Pace") -> "_Pace":
        return _Pace(self.tokens + other.tokens, self.seconds + other.seconds)


def measure(home: Path) -> list[Line]:
    arguments = ("--enable-prompt-tokens-details",)
    with serve(home / "judging", max_model_len=8192, extra_args=arguments) as (_, log, settings):
        names, everything = fill(log, long_dialogues(TURNS)), fill(log, as_they_come())
        timed = fill(log, long_dialogues(TIMED))
        checked = fill(log, as_they_come(checked=True))
        url = f"http://127.0.0.1:{settings.server.port}"
        _judge(log, url, timed[:1], JudgeMode.TURN)  # warm: the first grammars are compiled
        speed = _speed(log, url, timed)
        turn = _judge(log, url, names, JudgeMode.TURN)
        paper = _judge(log, url, names, JudgeMode.PAPER)
        lines = [*_against_paper(turn, paper, "a judged turn", ("≤ 1/10", "≤ 1/15")), speed]
        short, short_paper, item = (
            _judge(log, url, everything, mode) for mode in (JudgeMode.TURN, JudgeMode.PAPER, JudgeMode.ITEM)
        )
        agreement = _agreement(*(asyncio.run(_verdict_fields(url, run)) for run in (short, item)))
        lines.append(
            Line("judge: one call a turn against one an item", agreement, _failed(short, item), "–", "–").said()
        )
        shipped = _judge(log, url, checked, JudgeMode.TURN)
    lines += _against_paper(short, short_paper, "a turn, all as they come", ("–", "–"))
    turns = short.report.turns  # the same ones; where code decides every item of a turn, no judge is told of it
    return [
        *lines,
        Line(
            "judge: calls a turn, all as they come, with their checks",
            f"{shipped.spent.calls / turns:.1f}",
            f"CM2's procedure {short_paper.spent.calls / turns:.1f}",
            f"{shipped.spent.calls / short_paper.spent.calls:.2f}",
            "≤ 1/10",
        ).said(),
    ]


def _speed(log: Log, url: str, names: list[str]) -> Line:
    """The judge against its own requests straight to vLLM, in turns: a machine's speed changes."""
    judged, alone = _Pace(), _Pace()
    for _ in range(TURNS_OF_SPEED):
        run = _judge(log, url, names, JudgeMode.TURN)
        judged += _Pace(run.spent.completion_tokens, run.seconds)
        alone += asyncio.run(_replay(url, list(run.conversations.values())))
    return Line(
        f"judge: answered tokens a second, {CONCURRENCY} at once",
        f"{judged.a_second:.0f}/s",
        f"vLLM alone {alone.a_second:.0f}/s",
        f"{judged.a_second / alone.a_second:.2f}",
        "≥ 0.9",
    ).said()


def _against_paper(turn: _Run, paper: _Run, which: str, aims: tuple[str, str]) -> list[Line]:
    turns = turn.report.turns
    computed, computed_paper = (run.spent.prompt_tokens - run.spent.cached_tokens for run in (turn, paper))
    first = len(turn.conversations)
    again = turn.spent.calls - first
    return [
        Line(
            f"judge: calls {which}",
            f"{first / turns:.1f} + {again / turns:.1f} for a quote",
            f"CM2's procedure {paper.spent.calls / turns:.1f}",
            f"1/{paper.spent.calls / turn.spent.calls:.1f}, without quotes 1/{paper.spent.calls / first:.0f}",
            aims[0],
        ).said(),
        Line(
            f"judge: prompt tokens sent {which}",
            f"{turn.spent.prompt_tokens / turns:.0f}",
            f"CM2's procedure {paper.spent.prompt_tokens / turns:.0f}",
            f"1/{paper.spent.prompt_tokens / turn.spent.prompt_tokens:.1f}",
            "–",
        ).said(),
        Line(
            f"judge: prompt tokens computed {which}",
            f"{computed / turns:.0f}",
            f"CM2's procedure {computed_paper / turns:.0f}",
            f"1/{computed_paper / computed:.1f}",
            aims[1],
        ).said(),
    ]


class _Watched(LlmJudge):
    """Keeps what it sends; its answers are cut."""

    def __init__(self, endpoint: RoleEndpoint, mode: JudgeMode) -> None:
        super().__init__(endpoint, mode)
        self.conversations: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    async def send(
        self,
        messages: Sequence[ChatCompletionMessageParam],
        dialogue: Dialogue,
        response_format: ResponseFormatJSONSchema,
        max_tokens: int,
        items: int,
        draw: int,
    ) -> Said:
        room = ROOM[self.mode] * (items + 1)
        key = (dialogue.turn.trajectory_id, dialogue.turn.index, str(messages[-1 if len(messages) < 3 else 1]))
        request = {"messages": list(messages), "response_format": response_format, "max_tokens": room}
        self.conversations.setdefault(key, []).append(request)
        return await super().send(messages, dialogue, response_format, room, items, draw)


def _judge(log: Log, url: str, names: list[str], mode: JudgeMode) -> _Run:
    """All turns, beside, whatever the log knows; one connection pool for all questions."""
    httpx.post(f"{url}/reset_prefix_cache", timeout=30)
    endpoint = Endpoint(base_url=f"{url}/v1", model="policy", timeout_s=600, max_concurrency=CONCURRENCY)

    async def run() -> _Run:
        judge = _Watched(RoleEndpoint(ModelRole.JUDGE, endpoint, log=log), mode)
        began = time.perf_counter()
        report = await Judge(log, Panel((judge,))).judge_log(names, JudgingOptions(beside=True, fresh=True))
        seconds = time.perf_counter() - began
        return _Run(report, judge.endpoint.spent, seconds, judge.conversations)

    return asyncio.run(run())


async def _replay(url: str, conversations: list[list[dict[str, Any]]]) -> _Pace:
    """The same requests straight to vLLM."""
    httpx.post(f"{url}/reset_prefix_cache", timeout=30)
    slots = asyncio.Semaphore(CONCURRENCY)
    tokens = 0
    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def one(requests: list[dict[str, Any]]) -> None:
            nonlocal tokens
            for request in requests:
                body = request | {"model": "policy", "temperature": 0.0}
                async with slots:
                    answer = await client.post(f"{url}/v1/chat/completions", json=body)
                tokens += answer.raise_for_status().json()["usage"]["completion_tokens"]

        await asyncio.gather(*(one(requests) for requests in conversations))
    return _Pace(tokens, time.perf_counter() - began)


async def _verdict_fields(url: str, run: _Run) -> dict[tuple[Any, ...], str]:
    """(trajectory, turn, item) -> PASS or FAIL as the model wrote it, before any evidence is looked for.

    Reasons and quotes are held to `STRING` characters, or the small model fills them until its answer is cut off.
    """
    said: dict[tuple[Any, ...], str] = {}
    slots = asyncio.Semaphore(CONCURRENCY)
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def one(key: tuple[Any, ...], request: dict[str, Any]) -> None:
            body = request | {"model": "policy", "temperature": 0.0, "response_format": _bounded(request)}
            async with slots:
                answer = await client.post(f"{url}/v1/chat/completions", json=body | {"max_tokens": 1024})
            content = answer.raise_for_status().json()["choices"][0]["message"]["content"]
            try:
                entries = json.loads(content)["verdicts"]
            except ValueError:  # cut off all the same: not compared
                return
            said.update({(*key[:2], item): entry["verdict"] for item, entry in entries.items()})

        await asyncio.gather(*(one(key, requests[0]) for key, requests in run.conversations.items()))
    return said


def _bounded(request: dict[str, Any]) -> dict[str, Any]:
    """The request's answer format with short strings."""
    copied: dict[str, Any] = json.loads(json.dumps(request["response_format"]))
    for of_an_item in copied["json_schema"]["schema"]["properties"]["verdicts"]["properties"].values():
        for name in ("reason", "quote"):
            of_an_item["properties"][name]["maxLength"] = STRING
    return copied


def _agreement(one: dict[tuple[Any, ...], str], other: dict[tuple[Any, ...], str]) -> str:
    """Share of equal verdicts and Cohen's kappa, over items that both came to."""
    both = sorted(one.keys() & other.keys())
    pairs = [
        Pair(key[0], key[1], n, Outcome(one[key]), Outcome(other[key]), "item", None, "llm", "", "", False)
        for n, key in enumerate(both)
    ]
    if not pairs:
        return "no item that both came to"
    found = measure_agreement(pairs, seed=1)
    kappa = f"– ({found.kappa.why})" if found.kappa.value is None else f"{found.kappa.value:.2f}"
    passed = [sum(said[key] == Outcome.PASS for key in both) for said in (one, other)]
    return f"{found.raw.value:.2f} equal, κ {kappa}, n = {len(both)}, PASS {passed[0]} and {passed[1]}"


def _failed(turn: _Run, item: _Run) -> str:
    shares = [run.report.outcomes[Outcome.UNSCORED] / sum(run.report.outcomes.values()) for run in (turn, item)]
    return f"UNSCORED {shares[0]:.0%} and {shares[1]:.0%} of items"
