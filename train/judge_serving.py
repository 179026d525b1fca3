"""Serves a distilled judge with vLLM: beside the policy where both sit on the same base, else on a server of its own.

An adapter adds to whatever weights lie below it. A vLLM whose policy is full weights gets others at every promotion, so
the judge there would change without anyone saying so: that is refused. It is offered where the policy's versions are
adapters on the very weights that the judge was trained on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent.ports import check_port_free
from agent.slot import is_adapter
from agent.vllm_client import RequestRefused, ServerError, VllmClient
from agent.vllm_server import VllmServer
from store.database import Log
from store.settings import ServerSettings, Settings
from store.versions import get_version, live_version
from train.errors import TrainingFailed
from train.judge_files import SavedJudge, weight_hashes

WATCH_S = 1.0
ADAPTERS_BESIDE = 3
"""Two while the policy is swapped, and the judge."""


def judge_section(judge: SavedJudge, base_url: str) -> str:
    """What goes into checkloop.toml."""
    return (
        f'[judge]\nbase_url = "{base_url}/v1"\nmodel = "{judge.card.name}"\n\n'
        f'[judging]\nmode = "small"    # the question that it was trained on\n'
    )


def check_base(judge: SavedJudge) -> Path:
    """The base model's directory. Raises TrainingFailed if it is gone, or no longer what the judge was trained on."""
    base = Path(judge.card.base)
    if not base.is_dir():
        raise TrainingFailed(f"{judge.card.name} sits on the model in {base}, which is not there any more")
    if weight_hashes(base) != judge.card.base_files:
        raise TrainingFailed(
            f"the weights in {base} are not those that {judge.card.name} was trained on: it would judge otherwise"
        )
    return base


def why_not_beside(log: Log, settings: Settings, judge: SavedJudge) -> str | None:
    """Why the judge cannot be loaded into the server of the policy; None if it can."""
    server, card = settings.server, judge.card
    if server.max_loras < ADAPTERS_BESIDE:
        return f"server.max_loras is {server.max_loras}, and a swap of the policy needs two adapters, the judge a third"
    if card.rank > server.max_lora_rank:
        return f"the adapter's rank is {card.rank}, and server.max_lora_rank is {server.max_lora_rank}"
    if odd := sorted(set(card.modules) - set(server.lora_modules)):
        return f"the adapter changes {', '.join(odd)}, which server.lora_modules does not name"
    live = live_version(log)
    if live is None:
        return "no version is live"
    if not is_adapter(Path(live.path)):
        return (
            f"the live version {live.name} is full weights: the next promotion replaces what the judge sits on, and it "
            "would judge otherwise from then on"
        )
    below = live
    while is_adapter(Path(below.path)):
        if below.parent is None:
            return f"version {below.name} is an adapter without a parent"
        below = get_version(log, below.parent)
    if weight_hashes(Path(below.path)) != card.base_files:
        return f"the policy's adapters sit on {below.name}, whose weights are not those that the judge was trained on"
    return None


async def load_beside(log: Log, settings: Settings, judge: SavedJudge) -> str:
    """Loads the judge into the running server of the policy; its URL. Raises TrainingFailed, ServerError."""
    if (reason := why_not_beside(log, settings, judge)) is not None:
        raise TrainingFailed(f"{judge.card.name} cannot be served beside the policy: {reason}; leave --beside out")
    urls = settings.server.urls or (f"http://127.0.0.1:{settings.server.port}",)
    for url in urls:
        client = VllmClient("policy", url)
        try:
            await _load(client, judge)
        finally:
            await client.close()
    return urls[0]


@asynccontextmanager
async def judge_server(settings: Settings, judge: SavedJudge, port: int) -> AsyncIterator[VllmServer]:
    """A vLLM of the judge's own on its base; afterwards nothing of it runs. Raises TrainingFailed, ServerError."""
    try:
        check_port_free("127.0.0.1", port, f"judge {judge.card.name}")
    except ServerError as error:
        raise TrainingFailed(f"port {port} for {judge.card.name} is in use: choose another one with --port") from error
    server = VllmServer(
        judge.card.name, port, check_base(judge), own_server_settings(settings.server, judge), settings.home / "servers"
    )
    try:
        server.launch()
        await server.wait_ready()
        await _load(server, judge)
        yield server
    finally:
        server.stop()
        await server.close()


async def serve_judge(settings: Settings, judge: SavedJudge, port: int, say: Callable[[str], object]) -> None:
    """Until it is stopped. Raises ServerError if the server does not come up or dies."""
    say(f"starting vLLM with {judge.card.name} on {judge.card.base} (half a minute) ...")
    async with judge_server(settings, judge, port) as server:
        say(f"put this into checkloop.toml; Ctrl-C stops the server\n\n{judge_section(judge, server.url)}")
        while server.alive:
            await asyncio.sleep(WATCH_S)
        raise ServerError(f"the vLLM server of {judge.card.name} ended: {server.last_words()}")


def own_server_settings(server: ServerSettings, judge: SavedJudge) -> ServerSettings:
    """As the policy's server, but for what adapters need."""
    changes = {"max_loras": 1, "max_lora_rank": _vllm_rank(judge.card.rank), "lora_modules": _fused(judge.card.modules)}
    return server.model_copy(update=changes)


def _vllm_rank(rank: int) -> int:
    """The least that vLLM offers: it has buffers of a few ranks only."""
    offered = (1, 8, 16, 32, 64, 128, 256, 320, 512)
    if rank > offered[-1]:
        raise TrainingFailed(f"vLLM serves adapters of rank {offered[-1]} at most, not {rank}")
    return next(size for size in offered if size >= rank)


def _fused(modules: tuple[str, ...]) -> tuple[str, ...]:
    """vLLM keeps some layers as one: it has to be told both names."""
    names = list(modules)
    for one, parts in (("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("gate_up_proj", ("gate_proj", "up_proj"))):
        if any(part in modules for part in parts):
            names += [name for name in (*parts, one) if name not in names]
    return tuple(names)


async def _load(client: VllmClient, judge: SavedJudge) -> None:
    try:
        await client.load_adapter(judge.card.name, judge.path)
    except RequestRefused as error:
        # A judge's files never change, so one of that name that is there already is this one.
        if "already been loaded" not in str(error):
            raise
