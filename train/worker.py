"""A worker: fires due schedules, takes jobs, runs each in a process of its own, and keeps its lease meanwhile.

Writes job, job_log, firing and worker rows. A database that does not answer stops neither it nor, until its lease has
run out, its job.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from agent.vllm_client import ServerError
from store.database import Log, LogError
from store.jobs import JobRecord
from store.leases import Hold, claim_job, held_now, take_back_lost
from store.schema import now
from store.settings import Settings
from store.vocabulary import ExitReason, JobKind
from store.workers import beat, register_worker, sign_off
from train.errors import JobRefused
from train.job_child import Command, JobChild, environment_of, job_command
from train.job_gateway import bring_back_live, is_running
from train.job_kinds import NEED_ACCELERATOR, NEED_GATEWAY
from train.job_watch import Every, JobWatch, write_failure
from train.scheduler import fire_due

TICK_S = 0.1
BEAT_EVERY_S = 10.0
MAX_NAME = 64
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")


class Worker:
    """One job at a time. `run` until told to stop."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        *,
        name: str = "",
        accelerators: Sequence[str] = (),
        kinds: Sequence[JobKind] = tuple(JobKind),
        config: Path | None = None,
        command: Command | None = None,
        clock: Callable[[], datetime] = now,
        say: Callable[[str], None] = print,
    ) -> None:
        own = socket.gethostname()[:40]
        self.host = settings.worker.host or own
        self.name = name or f"{own}-{os.getpid()}"
        if len(self.name) > MAX_NAME:
            raise JobRefused(f"--name {self.name}: a worker's name has at most {MAX_NAME} characters")
        self._log = log
        self._settings = settings
        self._worker = settings.worker
        self._accelerators = tuple(accelerators) or find_accelerators()
        self._kinds = tuple(kinds)
        self._config = config
        self._command = command or self._command_of
        self._clock = clock
        self._say = say
        self._stopping = False
        self._registered = False
        self._schedules = Every(self._worker.poll_s)
        self._heart = Every(BEAT_EVERY_S)

    def _command_of(self, job: JobRecord, outcome_file: Path) -> Sequence[str]:
        """A job that talks to a gateway of this machine alone stays here, whatever the engine."""
        here = job.kind in NEED_GATEWAY and self._settings.gateway.host in LOOPBACK
        on_ray = self._worker.engine == "ray" and not here
        return job_command(job, outcome_file, self._worker.launcher, on_ray)

    def stop(self) -> None:
        """From a signal handler: the job at hand goes back to the queue, then `run` returns."""
        self._stopping = True

    def run(self, *, once: bool = False) -> int:
        """How many tries of jobs it ran. With `once` it returns when nothing is ready."""
        tries = 0
        self._say(f"worker {self.name}: {', '.join(self._kinds)}; accelerators {', '.join(self._accelerators)}")
        try:
            while not self._stopping:
                job = self._next_job()
                if job is not None:
                    self._run_job(job)
                    tries += 1
                elif once:
                    break
                else:
                    self._sleep(self._worker.poll_s)
        finally:
            self._try(lambda: sign_off(self._log, self.name))
        return tries

    def _next_job(self) -> JobRecord | None:
        try:
            self._look_around()
            take_back_lost(self._log, self._clock())
            return claim_job(
                self._log,
                owner=self.name,
                host=self.host,
                offers=self._offers(),
                lease_s=self._worker.lease_s,
                at=self._clock(),
            )
        except LogError as error:
            self._say(f"worker {self.name}: {error}")
            return None

    def _look_around(self) -> None:
        """What is to be done whether a job runs or not. Raises LogError."""
        if self._heart.due():
            if not self._registered:
                register_worker(
                    self._log,
                    self.name,
                    host=self.host,
                    pid=os.getpid(),
                    accelerators=self._accelerators,
                    kinds=self._kinds,
                )
                self._registered = True
            beat(self._log, self.name)
        if self._schedules.due():
            fire_due(self._log, self._clock(), self._worker.missed_after_s, self._say)

    def _offers(self) -> dict[JobKind, Hold]:
        """What this worker can take now. An accelerator is offered if no job holds it."""
        offers = {kind: Hold() for kind in self._kinds}
        for kind in NEED_GATEWAY & offers.keys():
            offers[kind] = Hold(None, self._gateway_name())
        for kind in NEED_ACCELERATOR & offers.keys():
            held = held_now(self._log)
            free = [name for name in self._accelerators if f"{self.host}/{name}" not in held]
            if free:
                offers[kind] = Hold(free[0], f"{self.host}/{free[0]}")
            else:
                del offers[kind]
        return offers

    def _gateway_name(self) -> str:
        gateway = self._settings.gateway
        host = self.host if gateway.host in LOOPBACK else gateway.host
        return f"{host}/gateway:{gateway.port}"

    def _run_job(self, job: JobRecord) -> None:
        self._say(f"job {job.id}: {job.kind}, {job.name}")
        try:
            child = JobChild(job, self._command, environment_of(job, self._config))
        except OSError as error:
            said = f"its process could not be started: {error}"
            self._say(f"job {job.id}: {said}")
            self._try(lambda: write_failure(self._log, job, ExitReason.MACHINE, said, self._clock()))
            return
        try:
            watch = JobWatch(
                self._log,
                self._worker,
                job,
                child,
                clock=self._clock,
                say=self._say,
                meanwhile=lambda: self._try(self._look_around),
                is_stopping=lambda: self._stopping,
            )
            in_order = watch.run()
        finally:
            child.close()
        if job.kind in NEED_GATEWAY and not in_order:
            self._bring_back_live()

    def _bring_back_live(self) -> None:
        """A gate that was killed may have left its candidate on the server that people are answered by."""
        try:
            if is_running(self._settings):
                bring_back_live(self._log, self._settings)
        except (ServerError, LogError) as error:
            self._say(f"worker {self.name}: the live version could not be brought back: {error}")

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(min(TICK_S, seconds))

    def _try(self, action: Callable[[], object]) -> bool:
        """Whether the log took it; what it said otherwise is told."""
        try:
            action()
        except LogError as error:
            self._say(f"worker {self.name}: {error}")
            return False
        return True


def find_accelerators() -> tuple[str, ...]:
    """This machine's GPUs (those of CUDA_VISIBLE_DEVICES where that is set), else its CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        numbers = [number.strip() for number in visible.split(",") if number.strip() not in ("", "-1")]
    else:
        numbers = sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(f"cuda:{number}" for number in numbers) or ("cpu",)
