"""Swaps under load, in three forms: failed requests and the longest wait of 32 streams for a token."""

import asyncio
import json
import time
from pathlib import Path

import httpx

from agent.gateway_process import GatewayProcess
from benchmarks.line import Line
from benchmarks.serving import serve

STREAMS = 32
SECONDS = 12.0


def measure(home: Path) -> list[Line]:
    lines: list[Line] = []
    with serve(home / "swap", versions=2) as (gateway, _, _):
        lines += _lines("full weights in place", gateway)
    with serve(home / "swap", versions=2, staging=True) as (gateway, _, _):
        gateway.stage("v0002")
        lines += _lines("full weights, staging server", gateway)
    with serve(home / "swap", versions=1, adapters=1, max_loras=2) as (gateway, _, _):
        lines += _lines("adapter", gateway)
    return lines


def _lines(name: str, gateway: GatewayProcess) -> list[Line]:
    failed, done, stall, usual, figures = asyncio.run(_load(gateway.url))
    stages = f"drain {figures['drain_s']:.2f}, reload {figures['reload_s']:.2f}, proof {figures['proof_s']:.2f} s"
    took = figures["drain_s"] + figures["reload_s"] + figures["proof_s"]
    return [
        Line(f"swap, {name}: failed requests", str(failed), f"of {done}", f"{failed / max(done, 1):.2f}", "0"),
        Line(f"swap, {name}: seconds", f"{took:.2f} s", stages, "–", "–"),
        Line(
            f"swap, {name}: longest wait for a token",
            f"{stall:.2f} s",
            f"before the swap {usual:.2f} s",
            f"{stall / 1.0:.2f}",
            "≤ 1 s",
        ),
    ]


async def _load(url: str) -> tuple[int, int, float, float, dict[str, float]]:
    """(failed, finished, longest wait for a chunk around the swap, the same before it, the swap's figures); seconds."""
    failed = done = 0
    longest = usual = 0.0
    swapping = False
    warm, end = time.monotonic() + SECONDS / 4, time.monotonic() + SECONDS
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def stream(n: int) -> None:
            nonlocal failed, done, longest, usual
            request = 0
            while time.monotonic() < end:
                request += 1
                body = {
                    "model": "policy",
                    "messages": [{"role": "user", "content": f"Tell me about the number {n}."}],
                    "max_tokens": 24,
                    "stream": True,
                }
                last, whole = time.monotonic(), False
                path = f"/sessions/swap-{n}-{request}/v1/chat/completions"
                async with client.stream("POST", path, json=body) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: "):
                            waited = time.monotonic() - last
                            if swapping:
                                longest = max(longest, waited)
                            elif time.monotonic() > warm:
                                usual = max(usual, waited)
                            last = time.monotonic()
                            whole = line == "data: [DONE]"
                            if not whole and "error" in json.loads(line[6:]):
                                break
                done += 1
                failed += not whole

        async def swap() -> dict[str, float]:
            nonlocal swapping
            await asyncio.sleep(SECONDS / 2)
            swapping = True
            answer = await client.post("/admin/promote/v0002", params={"reason": "benchmark"})
            return dict(answer.raise_for_status().json())

        *_, figures = await asyncio.gather(*(stream(n) for n in range(STREAMS)), swap())
    return failed, done, longest, usual, figures
