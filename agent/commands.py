"""`checkloop serve`: the gateway with its vLLM servers in one process tree."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from agent.addresses import LOOPBACK
from agent.fleet import Fleet
from agent.gateway import Gateway
from agent.gateway_app import make_app
from agent.ports import check_port_free
from agent.renderer_choice import load_renderer
from agent.rendering import Renderer
from agent.vllm_client import ServerError
from store.database import Log
from store.settings import Settings


async def serve(log: Log, settings: Settings) -> None:
    """Serves the live version until stopped. Raises ServerError if anything does not come up, RenderingError."""
    async with started(log, settings) as (server, _):
        await server.serve()


@asynccontextmanager
async def started(log: Log, settings: Settings) -> AsyncIterator[tuple[uvicorn.Server, Gateway]]:
    """The gateway before servers that are up, ready to serve; afterwards nothing of it runs. Raises ServerError."""
    host, port = settings.gateway.host, settings.gateway.port
    if host not in LOOPBACK and settings.gateway.token is None:
        raise ServerError(
            f"gateway.host {host!r} is not a loopback address: set a token for it in CHECKLOOP_TOKEN, or use 127.0.0.1"
        )
    check_port_free(host, port, "gateway")
    fleet = Fleet(log, settings)
    renderer = await _start(fleet, settings)
    gateway = Gateway(log, fleet, renderer, settings)
    config = uvicorn.Config(
        make_app(gateway),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(settings.gateway.shutdown_s)),
    )
    watch = asyncio.create_task(fleet.watch())
    try:
        yield uvicorn.Server(config), gateway
    finally:
        watch.cancel()
        await fleet.close()


async def _start(fleet: Fleet, settings: Settings) -> Renderer:
    """Starts the servers, and meanwhile loads the renderer, whose libraries take seconds to import."""
    starting = asyncio.create_task(fleet.start())
    try:
        renderer = await asyncio.to_thread(load_renderer, fleet.live.weights.full.path, settings.model.renderer)
        await starting
    except BaseException:
        starting.cancel()
        await fleet.close()
        raise
    return renderer
