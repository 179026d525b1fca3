"""`checkloop serve`: the gateway with its vLLM servers in one process tree."""

import asyncio
from pathlib import Path

import uvicorn

from agent.fleet import Fleet
from agent.gateway import Gateway, make_app
from agent.rendering import Renderer
from agent.vllm_server import ServerError, check_port_free
from store.database import Log
from store.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


async def serve(log: Log, settings: Settings) -> None:
    """Serves the live version until stopped. Raises ServerError if anything does not come up."""
    host, port = settings.gateway.host, settings.gateway.port
    if host not in LOOPBACK:
        raise ServerError(
            f"gateway.host {host!r} is not a loopback address: without sign-in it serves this machine only"
        )
    check_port_free(host, port, "gateway")
    fleet = Fleet(log, settings)
    await fleet.start()
    renderer = Renderer.from_dir(Path(fleet.live.server.model_dir))
    app = make_app(Gateway(log, fleet, renderer, settings))
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=5
    )
    watch = asyncio.create_task(_watch(fleet))
    try:
        await uvicorn.Server(config).serve()
    finally:
        watch.cancel()
        fleet.stop()


async def _watch(fleet: Fleet) -> None:
    """Starts a server again that died; its requests have failed with 503 and may be tried again."""
    while True:
        await asyncio.sleep(1.0)
        for slot in fleet.slots.values():
            if not slot.server.alive:
                await slot.revive()
