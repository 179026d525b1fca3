"""What the gateway adds to vLLM called directly: milliseconds with one caller, tokens per second with 32.

Both sides are asked in OpenAI's form for the same messages, in turns, by the same client; vLLM renders them itself.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.line import Line
from benchmarks.serving import serve

CALLS = 150
CALLERS, ROUNDS, TOKENS = 32, 3, 48
PROMPT = "A traveller wants to go from Oslo to Rome with two friends and a dog. " * 12


def measure(home: Path) -> list[Line]:
    with serve(home / "gateway") as (gateway, _, settings):
        direct = f"http://127.0.0.1:{settings.server.port}"
        return asyncio.run(_measure(gateway.url, direct))


async def _measure(gateway: str, direct: str) -> list[Line]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        alone = await _one_caller(client, gateway, direct)
        plain = await _throughput(client, gateway, direct, stream=False)
        streamed = await _throughput(client, gateway, direct, stream=True)
    lines = []
    for name, (ours, theirs), aim in (("median", alone[0], "≤ +2 ms"), ("p99", alone[1], "≤ +8 ms")):
        more = f"{ours - theirs:+.1f} ms"
        lines.append(Line(f"gateway, one caller: {name}", f"{ours:.1f} ms", f"vLLM {theirs:.1f} ms", more, aim))
    for name, (ours, theirs) in (("plain", plain), ("streamed", streamed)):
        lines.append(
            Line(
                f"gateway, {CALLERS} callers, {name}: tokens",
                f"{ours:.0f}/s",
                f"vLLM {theirs:.0f}/s",
                f"{ours / theirs:.2f}",
                "≥ 0.97",
            )
        )
    return lines


async def _one_caller(
    client: aiohttp.ClientSession, gateway: str, direct: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """((median, median), (p99, p99)) in ms of the gateway and of vLLM; one new token each, calls in turns."""
    ours: list[float] = []
    theirs: list[float] = []
    for n in range(-5, CALLS):
        for url, times in ((f"{gateway}/sessions/one-{n}", ours), (direct, theirs)):
            body = _body(f"{PROMPT} {n} {len(url)}", 1)
            began = time.perf_counter()
            await _ask(client, url, body)
            if n >= 0:
                times.append(1000 * (time.perf_counter() - began))
    return (statistics.median(ours), statistics.median(theirs)), (_p99(ours), _p99(theirs))


async def _throughput(client: aiohttp.ClientSession, gateway: str, direct: str, *, stream: bool) -> tuple[float, float]:
    """Tokens per second of the gateway and of vLLM; rounds in turns, the order changing."""
    seconds = {"gateway": 0.0, "direct": 0.0}
    for n in range(-1, 2 * ROUNDS):
        for side in ("gateway", "direct") if n % 2 else ("direct", "gateway"):
            urls = [f"{gateway}/sessions/{stream}-{n}-{i}" if side == "gateway" else direct for i in range(CALLERS)]
            bodies = [_body(f"{PROMPT[:200]} {side} {n} {i}", TOKENS, stream) for i in range(CALLERS)]
            began = time.perf_counter()
            await asyncio.gather(*(_ask(client, url, body) for url, body in zip(urls, bodies, strict=True)))
            if n >= 0:
                seconds[side] += time.perf_counter() - began
    tokens = 2 * ROUNDS * CALLERS * TOKENS
    return tokens / seconds["gateway"], tokens / seconds["direct"]


def _body(text: str, tokens: int, stream: bool = False) -> dict[str, Any]:
    # The end of turn is kept away, so that both sides sample the same number of tokens.
    return {
        "model": "policy",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": stream,
        "logit_bias": {"2": -100},
    }


async def _ask(client: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
        said = await answer.read()
        assert answer.status == 200, said[:300]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
