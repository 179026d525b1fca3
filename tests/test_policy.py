"""The policy as a chat model: what is stopped ends at once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx2
import openai

from agent.policy import connect_policy

TICKS = 80
"""Moments in which a stream is stopped: one turn of the event loop after the other, past the first chunks."""


class Endless(httpx2.AsyncByteStream):
    """Chunks that are all there at once, and then an answer that goes on for ever."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(2 * TICKS):
            choice = {"index": 0, "delta": {"content": "and "}, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "policy", "choices": [choice]}
            yield f"data: {json.dumps(chunk)}\n\n".encode()
        await asyncio.Event().wait()


def answer(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless())


async def test_a_stream_ends_whenever_it_is_stopped() -> None:
    """Also in the moment in which its next chunk has come (asyncio.wait_for of Python 3.11 forgets a cancellation then,
    and who stopped an answer waited until it was sampled to its end)."""
    async with openai.DefaultAsyncHttpxClient(transport=httpx2.MockTransport(answer)) as connections:
        policy = connect_policy("http://gateway", "s", connections, temperature=1.0, max_tokens=16)

        async def listen() -> None:
            async for _ in policy.astream("go on"):
                pass

        await asyncio.wait([asyncio.create_task(listen())], timeout=0.5)  # what is imported at the first use
        for ticks in range(TICKS):
            listening = asyncio.create_task(listen())
            for _ in range(ticks):
                await asyncio.sleep(0)
            listening.cancel()
            ended, _ = await asyncio.wait([listening], timeout=2)
            assert ended, f"stopped after {ticks} turns of the event loop it goes on"
            with contextlib.suppress(asyncio.CancelledError):
                await listening
