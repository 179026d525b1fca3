"""Memory of the dashboard's server while twenty people walk through its pages on a large log.

A real server, each person a websocket of their own, as a browser opens it. Memory is the process's resident set
(Linux).
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks.line import Line
from dashboard.links import PageSpec
from dashboard.process import DashboardProcess
from store.database import Log
from store.settings import load_settings

PEOPLE = 20
LIMIT_MIB = 1500
ANSWER_S = 120.0
ON_AND_ON = {ForwardMsg.FINISHED_EARLY_FOR_RERUN}
"""A script that ended so is run again at once."""
Look = tuple[PageSpec, dict[str, str]]


def memory_line(log: Log, home: Path, looks: Sequence[Look], people: int = PEOPLE) -> Line:
    """Before: one person has seen every page once. After: `people` at a time have, each in another order."""
    settings = load_settings(home=home / "memory", database_url=log.url)
    port = 8599
    with DashboardProcess(settings, port) as server:
        server.wait_ready()
        address = f"ws://127.0.0.1:{port}/_stcore/stream"
        asyncio.run(_walk(address, looks))
        before = resident_mib(server.pid)
        asyncio.run(_walk_together(address, looks, people))
        after = resident_mib(server.pid)
    return Line(
        f"dashboard: memory with {people} people on every page",
        f"{after:.0f} MiB (one person: {before:.0f})",
        f"{LIMIT_MIB} MiB",
        f"{after / LIMIT_MIB:.2f}",
        "≤ 1",
    )


def resident_mib(pid: int) -> float:
    """Raises RuntimeError where the kernel does not say."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


async def _walk_together(address: str, looks: Sequence[Look], people: int) -> None:
    orders = [[*looks[n % len(looks) :], *looks[: n % len(looks)]] for n in range(people)]
    await asyncio.gather(*(_walk(address, order) for order in orders))


async def _walk(address: str, looks: Sequence[Look]) -> None:
    async with websockets.connect(address, subprotocols=["streamlit"], max_size=None) as connection:  # type: ignore[list-item]
        for page, query in looks:
            said = BackMsg()
            said.rerun_script.query_string = urlencode(query)
            said.rerun_script.page_name = page.path
            await connection.send(said.SerializeToString())
            await asyncio.wait_for(_answer(connection), ANSWER_S)


async def _answer(connection: websockets.ClientConnection) -> None:
    """Until the script has run to its end."""
    async for message in connection:
        heard = ForwardMsg()
        heard.ParseFromString(message if isinstance(message, bytes) else message.encode())
        if heard.WhichOneof("type") == "script_finished" and heard.script_finished not in ON_AND_ON:
            return
