"""Servers as child processes that do not come up: what is said, and that nothing of them stays. No vLLM is started."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.gateway_process import GatewayProcess
from agent.ports import free_ports
from agent.vllm_client import ServerError
from agent.vllm_server import SHORT_WAITS, VllmServer
from store.settings import ServerSettings, load_settings
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def started(
    script: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float
) -> VllmServer:
    """A server whose executable is `script` instead of a Python with vLLM."""
    executable = tmp_path / "python"
    executable.write_text(f"#!/bin/sh\n{script}\n")
    executable.chmod(0o755)
    settings = ServerSettings(start_timeout_s=timeout_s)
    server = VllmServer("live", free_ports()[1], model_dir, settings, tmp_path / "servers")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(executable))
        server.launch()
    return server


def test_a_server_that_dies_says_why(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "echo 'loading'; echo 'ValueError: no room for the KV cache' >&2; echo 'bye'; exit 3"
    server = started(script, model_dir, tmp_path, monkeypatch, timeout_s=60)
    with pytest.raises(ServerError) as failure:
        asyncio.run(server.wait_ready())
    said = str(failure.value)
    assert said.startswith("vLLM server 'live' ended while starting: ValueError: no room for the KV cache (log: ")
    assert str(tmp_path / "servers" / "vllm-live.log") in said
    assert not server.alive
    server.stop()


def test_the_engine_s_threads_wait_as_long_as_told(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, wanted in ((None, SHORT_WAITS), ("7", "7")):
        with monkeypatch.context() as patch:
            patch.delenv("GOMP_SPINCOUNT", raising=False)
            if given:
                patch.setenv("GOMP_SPINCOUNT", given)
            server = started("echo spins $GOMP_SPINCOUNT; exit 3", model_dir, tmp_path, monkeypatch, timeout_s=60)
            with pytest.raises(ServerError, match=f"spins {wanted}"):
                asyncio.run(server.wait_ready())


def test_a_server_that_never_answers_is_stopped(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores SIGTERM's first wish no longer than that: its whole process group is gone afterwards."""
    server = started("echo 'waiting for a device'; exec sleep 600", model_dir, tmp_path, monkeypatch, timeout_s=1)
    process = server._process
    assert process is not None and server.alive
    with pytest.raises(ServerError, match=r"did not answer within 1 s \(server\.start_timeout_s\): waiting for a dev"):
        asyncio.run(server.wait_ready())
    assert process.poll() is not None and not server.alive


class _Healthy(BaseHTTPRequestHandler):
    """Another checkloop's gateway, as far as its health goes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def foreign_port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_gateway_that_listens_already_is_not_taken_for_the_one_that_was_started(
    foreign_port: int, tmp_path: Path
) -> None:
    gateway = GatewayProcess(load_settings(home=tmp_path, gateway={"port": foreign_port}))
    told = rf"port {foreign_port} for the gateway is in use: stop what listens there, or choose another port .*gateway"
    with pytest.raises(ServerError, match=told), gateway:
        raise AssertionError("it was adopted")
    assert not (tmp_path / "servers" / "gateway.log").exists(), "nothing was started"


def test_a_gateway_is_waited_for_as_long_as_its_shutdown_may_take(tmp_path: Path) -> None:
    """20 s for connections, 20 s for requests, 10 + 5 s for each of its two servers: 70 s, not 30."""
    settings = load_settings(home=tmp_path, gateway={"shutdown_s": 20}, server={"staging": True})
    waited: list[float] = []

    class Slow:
        stdin = None

        def wait(self, timeout: float) -> None:
            waited.append(timeout)

    gateway = GatewayProcess(settings)
    gateway._process = Slow()  # type: ignore[assignment]
    gateway.stop()
    assert len(waited) == 1 and 70 < waited[0] < 90
