"""vLLM ends with the gateway that started it, also where that is killed and cannot stop anything."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from agent.bundled_model import prepare_bundled_model
from agent.ports import free_ports
from tests.serving import MODEL

ROOT = Path(__file__).resolve().parent.parent
STARTS = """
import sys, time
from pathlib import Path
from agent.vllm_server import VllmServer
from store.settings import ServerSettings
VllmServer("live", int(sys.argv[1]), Path(sys.argv[2]), ServerSettings(), Path(sys.argv[3])).launch()
time.sleep(600)
"""
SERVES = """
import os, subprocess, sys, time
from pathlib import Path
import http.server
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {worker.pid}")
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), http.server.BaseHTTPRequestHandler).serve_forever()
"""


def listens(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: object, what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_vllm_and_its_workers_end_with_a_gateway_that_is_killed(tmp_path: Path) -> None:
    """In vLLM's place stands a module of its name that listens and has a worker."""
    place = tmp_path / "vllm" / "entrypoints" / "openai"
    place.mkdir(parents=True)
    for folder in (place, *list(place.parents)[:2]):
        (folder / "__init__.py").touch()
    (place / "api_server.py").write_text(SERVES)
    pids, (port, _) = tmp_path / "pids", free_ports()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PIDS": str(pids)}
    arguments = [str(port), str(prepare_bundled_model(MODEL).resolve()), str(tmp_path)]
    gateway = subprocess.Popen([sys.executable, "-c", STARTS, *arguments], env=environment, cwd=ROOT)
    try:
        until(lambda: listens(port), "it came up")
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(map(runs, started))
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
        until(lambda: not listens(port), "the next gateway finds its port free")
        until(lambda: not any(map(runs, started)), "no worker is left")
    finally:
        gateway.kill()


FORKS = """
import asyncio, os, signal, socket
from agent import vllm_process

async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: woken.append("server"))
    os.register_at_fork(after_in_child=vllm_process.leave_to_server)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        link = socket.create_connection(listening.getsockname())
        read, write = os.pipe()
        if not os.fork():
            kept = []
            for fd in (listening.fileno(), link.fileno(), write):
                try:
                    os.fstat(fd)
                    kept.append(True)
                except OSError:
                    kept.append(False)
            os.write(write, repr((kept, signal.set_wakeup_fd(-1))).encode())
            os._exit(0)
        print(os.read(read, 1000).decode())
        os.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        print(woken, socket.create_connection(listening.getsockname()) is not None)

woken = []
asyncio.run(main())
"""


def test_a_forked_engine_leaves_port_and_signals_to_the_server() -> None:
    ran = subprocess.run([sys.executable, "-c", FORKS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines() == ["([False, True, True], -1)", "['server'] True"], ran.stderr
