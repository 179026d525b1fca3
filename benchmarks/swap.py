"""Swap of full weights under load: seconds by stage, failed requests and the longest wait of 32 streams."""

import asyncio
import json
import time
from pathlib import Path

import httpx

from benchmarks.line import Line
from benchmarks.serving import serve

STREAMS = 32
SECONDS = 12.0


def measure(home: Path) -> list[Line]:
    with serve(home / "swap", versions=2) as (gateway, _, _):
        failed, done, stall, figures = asyncio.run(_load(gateway.url))
    took = figures["drain_s"] + figures["reload_s"] + figures["proof_s"]
    stages = f"drain {figures['drain_s']:.2f}, reload {figures['reload_s']:.2f}, proof {figures['proof_s']:.2f} s"
    return [
        Line("swap under 32 streams: failed requests", str(failed), f"of {done}", f"{failed / max(done, 1):.2f}", "0"),
        Line("swap under 32 streams: seconds", f"{took:.2f} s", stages, "–", "–"),
        Line("swap under 32 streams: longest wait for a token", f"{stall:.2f} s", "–", "–", "–"),
    ]


async def _load(url: str) -> tuple[int, int, float, dict[str, float]]:
    """(failed, finished, longest gap between two chunks of a stream in seconds, the swap's figures)."""
    failed = done = 0
    longest = 0.0
    end = time.monotonic() + SECONDS
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def stream(n: int) -> None:
            nonlocal failed, done, longest
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
                            longest = max(longest, time.monotonic() - last)
                            last = time.monotonic()
                            whole = line == "data: [DONE]"
                            if not whole and "error" in json.loads(line[6:]):
                                break
                done += 1
                failed += not whole

        async def swap() -> dict[str, float]:
            await asyncio.sleep(SECONDS / 2)
            answer = await client.post("/admin/promote/v0002", params={"reason": "benchmark"})
            return dict(answer.raise_for_status().json())

        *_, figures = await asyncio.gather(*(stream(n) for n in range(STREAMS)), swap())
    return failed, done, longest, figures
