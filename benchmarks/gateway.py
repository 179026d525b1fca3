"""What the gateway adds to vLLM called directly: milliseconds with one caller, tokens per second with 32.

Both sides are asked in OpenAI's form for the same messages, in turns, by the same client; vLLM renders them itself.
With one caller also through a proxy that does nothing (`bare_proxy`), the least that a second hop costs.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.bare_proxy import running_proxy
from benchmarks.line import Line
from benchmarks.serving import serve

SIDES = ("gateway", "direct", "recording")
"""`recording`: vLLM called directly, but asked for what the gateway has to record: ids and logprobs."""
CALLS = 120
CALLERS, ROUNDS, TOKENS = 32, 3, 48
PROMPT = "A traveller wants to go from Oslo to Rome with two friends and a dog. " * 12


def measure(home: Path) -> list[Line]:
    with serve(home / "gateway") as (gateway, _, settings):
        direct = f"http://127.0.0.1:{settings.server.port}"
        with running_proxy(direct) as proxy:
            return asyncio.run(_measure(gateway.url, direct, proxy))


async def _measure(gateway: str, direct: str, proxy: str) -> list[Line]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        alone = await _one_caller(client, {"gateway": gateway, "direct": direct, "recording": direct, "proxy": proxy})
        plain = await _throughput(client, gateway, direct, stream=False)
        streamed = await _throughput(client, gateway, direct, stream=True)
    lines = []
    for name, of, aim in (("median", statistics.median, "≤ +2 ms"), ("p99", _p99, "≤ +8 ms")):
        ours, theirs, recording, proxied = (of(alone[side]) for side in (*SIDES, "proxy"))
        what = f"gateway, one caller: {name}"
        peer = f"vLLM {theirs:.1f}, with logprobs {recording:.1f}, behind a bare proxy {proxied:.1f} ms"
        lines.append(Line(what, f"{ours:.1f} ms", peer, f"{ours - theirs:+.1f} ms", aim))
    for name, rates in (("plain", plain), ("streamed", streamed)):
        ours, theirs, recording = (rates[side] for side in SIDES)
        what = f"gateway, {CALLERS} callers, {name}: tokens"
        peer = f"vLLM {theirs:.0f}/s, with logprobs {recording:.0f}/s"
        lines.append(Line(what, f"{ours:.0f}/s", peer, f"{ours / theirs:.2f}", "≥ 0.97"))
    return lines


async def _one_caller(client: aiohttp.ClientSession, addresses: dict[str, str]) -> dict[str, list[float]]:
    """Milliseconds of each call by side; one new token each, sides in turns."""
    times: dict[str, list[float]] = {side: [] for side in addresses}
    for n in range(-5, CALLS):
        for side, address in addresses.items():
            url = f"{address}/sessions/one-{n}" if side == "gateway" else address
            body = _body(f"{PROMPT} {n} {side}", 1, side)
            began = time.perf_counter()
            await _ask(client, url, body)
            if n >= 0:
                times[side].append(1000 * (time.perf_counter() - began))
    return times


async def _throughput(client: aiohttp.ClientSession, gateway: str, direct: str, *, stream: bool) -> dict[str, float]:
    """Tokens per second by side; rounds in turns, the order changing."""
    seconds = dict.fromkeys(SIDES, 0.0)
    for n in range(-1, 2 * ROUNDS):
        for side in SIDES if n % 2 else SIDES[::-1]:
            urls = [f"{gateway}/sessions/{stream}-{n}-{i}" if side == "gateway" else direct for i in range(CALLERS)]
            bodies = [_body(f"{PROMPT[:200]} {side} {n} {i}", TOKENS, side, stream) for i in range(CALLERS)]
            began = time.perf_counter()
            await asyncio.gather(*(_ask(client, url, body) for url, body in zip(urls, bodies, strict=True)))
            if n >= 0:
                seconds[side] += time.perf_counter() - began
    return {side: 2 * ROUNDS * CALLERS * TOKENS / seconds[side] for side in SIDES}


def _body(text: str, tokens: int, side: str, stream: bool = False) -> dict[str, Any]:
    # The end of turn is kept away, so that all sides sample the same number of tokens.
    body = {
        "model": "policy",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "stream": stream,
        "logit_bias": {"2": -100},
    }
    return body | ({"logprobs": True, "return_token_ids": True} if side == "recording" else {})


async def _ask(client: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    async with client.post(f"{url}/v1/chat/completions", json=body) as answer:
        said = await answer.read()
        assert answer.status == 200, said[:300]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
