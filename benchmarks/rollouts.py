"""Sampled tokens a second through graph, client, gateway and log, against vLLM alone on the same prompts.

The peer replays what the rollouts sent: the same prompt ids, the same number of tokens, the same order within each
dialogue, the same number of dialogues at once, straight to `/v1/completions`, prefix cache emptied before.
"""

import asyncio
import time
from pathlib import Path

import httpx

from benchmarks.line import Line
from benchmarks.serving import serve
from env_sim.rollouts import make_plans, play
from env_sim.scenario_generator import generate_scenarios
from reward.judge import Judge
from store.conversations import stored_steps
from store.database import Log
from store.records import Scenario
from store.scenarios import add_scenarios
from store.settings import Settings
from store.vocabulary import Origin, Split

SCENARIOS, GROUP = 8, 8


def measure(home: Path) -> list[Line]:
    with serve(home / "rollouts") as (gateway, log, settings):
        scenarios = generate_scenarios(Split.TRAIN, SCENARIOS, 7)
        add_scenarios(log, scenarios)
        asyncio.run(_play(log, scenarios, gateway.url, settings, "warm-up", 2))
        began = time.perf_counter()
        names = asyncio.run(_play(log, scenarios, gateway.url, settings, "measured", GROUP))
        through = time.perf_counter() - began
        dialogues = [_requests(log, name) for name in names]
        tokens = sum(count for dialogue in dialogues for _, count in dialogue)
        url = f"http://127.0.0.1:{settings.server.port}"
        httpx.post(f"{url}/reset_prefix_cache", timeout=30)
        began = time.perf_counter()
        asyncio.run(_replay(url, dialogues, settings.rollout.concurrency))
        raw = time.perf_counter() - began
    return [
        Line(
            "rollouts: sampled tokens a second through the agent",
            f"{tokens / through:.0f}/s",
            f"vLLM alone {tokens / raw:.0f}/s",
            f"{raw / through:.2f}",
            "≥ 0.8",
        )
    ]


async def _play(log: Log, scenarios: list[Scenario], url: str, settings: Settings, batch: str, group: int) -> list[str]:
    plans = make_plans(
        scenarios, group_size=group, batch=batch, seed=1, origin=Origin.ROLLOUT, version="v0001", log=log
    )
    judge = Judge(log)
    played = await play(log, plans, gateway_url=url, judge_turn=judge.judge_turn, settings=settings.rollout)
    return [one.trajectory_id for one in played]


def _requests(log: Log, trajectory: str) -> list[tuple[list[int], int]]:
    """(prompt ids, sampled tokens) of each step."""
    contexts: dict[int | None, list[int]] = {None: []}
    requests = []
    for step in stored_steps(log, trajectory):
        prompt = contexts[step.parent_id] + step.delta_ids
        contexts[step.id] = prompt + step.sampled_ids
        requests.append((prompt, len(step.sampled_ids)))
    return requests


async def _replay(url: str, dialogues: list[list[tuple[list[int], int]]], concurrency: int) -> None:
    slots = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def one(dialogue: list[tuple[list[int], int]]) -> None:
            async with slots:
                for prompt, count in dialogue:
                    body = {
                        "model": "policy",
                        "prompt": prompt,
                        "max_tokens": count,
                        "temperature": 1.0,
                        "logprobs": 0,
                        "ignore_eos": True,
                        "return_token_ids": True,
                    }
                    (await client.post(f"{url}/v1/completions", json=body)).raise_for_status()

        await asyncio.gather(*(one(dialogue) for dialogue in dialogues))
