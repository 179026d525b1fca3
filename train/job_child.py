"""A job's process, seen from the worker: started, listened to, told to stop, asked how it ended."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from store.jobs import JobRecord
from store.schema import now
from store.vocabulary import ExitReason, JobKind
from train.job_payloads import MAKE_CANDIDATES

MAX_WAITING_LINES = 10_000
"""Lines that wait for a database that does not answer; more are counted and left out."""

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE": "1"}
"""glibc's allocator on huge pages (Linux): a training step on the CPU takes and frees gigabytes, and faulting them in
page by page makes it half as fast again."""

Command = Callable[[JobRecord, Path], Sequence[str]]
"""The command line that does a job and writes how it ended to a file."""


@dataclass(frozen=True)
class Outcome:
    reason: ExitReason
    result: dict[str, Any] | None
    error: str | None


def job_command(
    job: JobRecord, outcome_file: Path, launcher: Sequence[str] = (), on_ray: bool = False
) -> Sequence[str]:
    """With a launcher, a GRPO run starts in several processes (train/processes.py); `on_ray`: where a Ray cluster has a
    place for it (train/ray_job.py)."""
    start = launcher if launcher and job.kind is JobKind.TRAIN and not on_ray else [sys.executable]
    module = "train.ray_job" if on_ray else "train.job_process"
    return [*start, "-m", module, str(job.id), str(job.claims), str(outcome_file)]


class JobChild:
    """Running from the moment it is made. Close it when it has ended."""

    def __init__(self, job: JobRecord, command: Command, environment: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="checkloop-job-"))
        self._outcome_file = self._folder / "outcome.json"
        self._lines: queue.Queue[tuple[datetime, str]] = queue.Queue(MAX_WAITING_LINES)
        self._left_out = 0
        self.was_killed = False
        # A session of its own: Ctrl-C is for the worker, which stops it in order.
        self._process = subprocess.Popen(
            command(job, self._outcome_file),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def lines(self) -> list[tuple[datetime, str]]:
        """What it wrote since the last call, with the moment it was read."""
        waiting: list[tuple[datetime, str]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._lines.get_nowait())
        if self._left_out:
            waiting.append((now(), f"[{self._left_out} lines were left out: they came faster than they were kept]"))
            self._left_out = 0
        return waiting

    def terminate(self) -> None:
        """Asks it to stop; asked again, it is interrupted."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """With all that it started in its session."""
        self.was_killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.ended

    def outcome(self) -> Outcome:
        """How it ended, said by itself or concluded from its exit status."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = json.loads(self._outcome_file.read_text())
            return Outcome(ExitReason(said["reason"]), said["result"], said["error"])
        status = self._process.returncode
        if self.was_killed:
            return Outcome(ExitReason.STOPPED, None, "it did not stop by itself and was killed")
        if status == -signal.SIGKILL:
            error = "its process was killed (SIGKILL), most likely because memory ran out"
            return Outcome(ExitReason.MEMORY, None, error)
        if status is not None and status < 0:
            return Outcome(ExitReason.CRASHED, None, f"its process died of {signal.Signals(-status).name}")
        return Outcome(ExitReason.CRASHED, None, f"its process ended with status {status} without saying why")

    def close(self) -> None:
        """Nothing of it is left: what it started is killed, its pipes are closed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.wait()
        self._reader.join(2.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def drain(self) -> None:
        """Waits until all that it wrote before it ended has been read."""
        self._reader.join(2.0)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            # A progress bar's carriage returns: what stood there last is what it said.
            text = raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
            try:
                self._lines.put_nowait((now(), text))
            except queue.Full:
                self._left_out += 1
                time.sleep(0.001)


def environment_of(job: JobRecord, config: Path | None) -> dict[str, str]:
    """The worker's own, with the settings file, the accelerator and what a training process wants of its allocator."""
    environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    if config is not None:
        environment["CHECKLOOP_CONFIG"] = str(config)
    if job.accelerator is not None and job.accelerator.startswith("cuda:"):
        environment["CUDA_VISIBLE_DEVICES"] = job.accelerator.removeprefix("cuda:")
    if job.kind in MAKE_CANDIDATES and sys.platform == "linux" and "GLIBC_TUNABLES" not in environment:
        environment |= HUGE_PAGES
    return environment
