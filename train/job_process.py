"""The process of one job: `python -m train.job_process JOB CLAIM OUTCOME`, started by a worker (train/job_child.py).

Does the job, prints what happens, writes how it ended to the file OUTCOME. Started several times by a launcher, the
first does that and the others follow it. It stops when it gets SIGTERM: at the end of the piece it is at, or where it
stands when the signal comes a second time. The worker holds the other end of its standard input; when that closes,
however the worker went, this process stops by itself.
"""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from agent.bundled_model import ModelError
from agent.vllm_client import ServerError
from store.database import LogError, open_log
from store.jobs import get_job
from store.settings import SettingsError, load_settings
from store.vocabulary import ExitReason
from train.errors import TrainingFailed
from train.progress import Stage, StageProgress

SAY_EVERY_S = 5.0
_IN_SEVERAL = int(os.environ.get("WORLD_SIZE", "1")) > 1
LAST_SECONDS = (2.0, 15.0)
"""After the worker is gone: when this process is interrupted, when it is killed."""


class StopRequested(BaseException):
    """The job is to stop. No `except Exception` on the way, such as the judge's, takes it for trouble of its own."""


class JobProgress(StageProgress):
    """One stage, the job, as lines; `advance` is where it stops if it is to."""

    def __init__(self, is_to_stop: Callable[[], bool]) -> None:
        super().__init__({}, Console(file=io.StringIO()))
        self._is_to_stop = is_to_stop
        self._said_at = 0.0
        self._said = ""

    @contextmanager
    def stage(self, key: str, title: str) -> Iterator[Stage]:
        yield Stage(self, key, title)

    def update(self, stage: Stage, share: float, detail: str) -> None:
        if self._is_to_stop():
            raise StopRequested
        if detail != self._said and (share >= 0.99 or time.monotonic() - self._said_at >= SAY_EVERY_S):
            print(f"{100 * share:3.0f} %  {detail}", flush=True)
            self._said_at, self._said = time.monotonic(), detail


def main(job_id: int, claim: int, outcome_file: Path) -> int:
    """The exit status: 1 tells a launcher that the processes which follow wait for nothing any more."""
    if int(os.environ.get("RANK", "0")) > 0:
        return _follow()
    stopping = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_worker, daemon=True).start()
    outcome: dict[str, Any]
    try:
        outcome = {"reason": ExitReason.DONE, "result": _do(job_id, claim, stopping.is_set), "error": None}
    except (StopRequested, KeyboardInterrupt):
        outcome = {"reason": ExitReason.STOPPED, "result": None, "error": "stopped"}
    except Exception as error:  # the job's boundary: whatever went wrong is recorded with the job
        outcome = failure_of(error)
    write_outcome(outcome_file, outcome)
    return int(_IN_SEVERAL and outcome["reason"] is not ExitReason.DONE)


def failure_of(error: Exception) -> dict[str, Any]:
    """What an outcome file says of it; a mistake's traceback is printed."""
    reason = reason_of(error)
    said = str(error)
    if reason is ExitReason.MISTAKE:
        traceback.print_exception(error)
        said = f"{type(error).__name__}: {error}"
    return {"reason": reason, "result": None, "error": said}


def write_outcome(file: Path, outcome: dict[str, Any]) -> None:
    """How a job ended, for whoever started its process; there whole, or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(outcome))
    part.replace(file)


def _follow() -> int:
    """When the run is to stop, the first process does; the launcher ends this one then."""
    from train.processes import follow

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=end_with_worker, daemon=True).start()
    follow()
    return 0


def _do(job_id: int, claim: int, is_to_stop: Callable[[], bool]) -> dict[str, Any]:
    from train.job_gateway import JobGateway
    from train.job_kinds import run_job
    from train.job_work import Work

    settings = load_settings()
    log = open_log(settings.url, settings.log.durability)
    try:
        job = get_job(log, job_id)
        if job.claims != claim:
            raise LogError(f"job {job_id} was taken over before it began")
        progress = JobProgress(is_to_stop)
        with progress.stage(job.kind, job.name) as stage, JobGateway(log, settings) as gateway, _leading():
            return run_job(Work(log, settings, job, stage, gateway))
    finally:
        log.close()


def _leading() -> AbstractContextManager[None]:
    if not _IN_SEVERAL:
        return contextlib.nullcontext()
    from train.processes import leading

    return leading()


def reason_of(error: BaseException) -> ExitReason:
    """By which boundary the failure crossed; it decides whether the job is tried again (train/retries.py)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # PyTorch's own, not imported here
        return ExitReason.MEMORY
    if isinstance(error, TrainingFailed) and isinstance(error.__cause__, OSError):
        return ExitReason.MACHINE  # a full disk, not a run that refuses
    for kinds, reason in _REASONS.items():
        if isinstance(error, kinds):
            return reason
    roots = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return ExitReason.SERVER if roots & _CLIENTS else ExitReason.MISTAKE


_REASONS: dict[tuple[type[BaseException], ...], ExitReason] = {
    (SettingsError, TrainingFailed, ModelError): ExitReason.REFUSED,
    (ServerError,): ExitReason.SERVER,
    (LogError,): ExitReason.LOG,
    (OSError,): ExitReason.MACHINE,
}
_CLIENTS = {"openai", "httpx", "httpx2"}
"""Whose exceptions say that a server did not do what it should; by name, as most jobs need none of them."""


def end_with_worker() -> None:
    """In a thread: once the worker holds the other end of standard input no more, this process stops by itself."""
    # Not through sys.stdin: its lock, held here for ever, would break the interpreter's way out.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    for moment, number in zip(LAST_SECONDS, (signal.SIGTERM, signal.SIGKILL), strict=True):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
