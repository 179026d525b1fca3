"""The least that a second hop costs: a FastAPI route that hands a request on to vLLM and its answer back, no more.

`python -m benchmarks.bare_proxy PORT URL`. What the gateway takes beyond it is rendering, reading and recording.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response

from agent.ports import free_port
from agent.startup import wait_until_up


def make_proxy(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.client:
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.post("/v1/chat/completions")
    async def hand_on(request: Request) -> Response:
        headers = {"content-type": "application/json"}
        body = await request.body()
        async with request.app.state.client.post(f"{url}/v1/chat/completions", data=body, headers=headers) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    @app.get("/health")
    async def say_up() -> Response:
        return Response()

    return app


@contextmanager
def running_proxy(url: str) -> Iterator[str]:
    """The address of a proxy before the server at `url`. Raises NotUp."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bare_proxy", str(port), url])
    try:
        wait_until_up(process, f"http://127.0.0.1:{port}/health", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    uvicorn.run(make_proxy(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
