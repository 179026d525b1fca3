"""A job on a Ray cluster: `python -m train.ray_job JOB CLAIM OUTCOME`, what a worker starts in the place of the job.

Asks the cluster for a place (an actor with the job's CPUs and GPUs), has the job's own process started there, prints
what that writes, passes on the wish to stop and hands back how it ended, so that to the worker it is the job. If it
goes, however it goes, Ray ends the actor, whose process notices that the pipe to it is closed, and ends.

Needs the extra `ray`. On the nodes checkloop is installed, the database answers, and `home` is the same folder.
"""

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from store.database import Log, LogError, open_log
from store.jobs import JobRecord, get_job
from store.settings import Settings, load_settings, settings_file
from store.vocabulary import ExitReason
from train.errors import JobRefused
from train.job_child import JobChild, environment_of, job_command
from train.job_payloads import MAKE_CANDIDATES
from train.job_process import end_with_worker, failure_of, write_outcome

POLL_S = 0.5
SAY_AFTER_S = 5.0
CONNECT_S = 10.0
CLOSE_S = 20.0
"""How long a job's process may take to end with its place."""
VARIABLES = ("CHECKLOOP_", "HF_", "TRANSFORMERS_", "WANDB_", "MLFLOW_")
"""Beginnings of the environment variables that go along with the job."""


class Place:
    """On the node: the job's process, as a worker of that machine would start it. An actor, once Ray has wrapped it."""

    def __init__(self, job: JobRecord, launcher: tuple[str, ...], variables: dict[str, str], config: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="checkloop-ray-"))
        file = self._folder / "checkloop.toml"
        file.write_text(config)
        os.environ.update(variables)
        # Which GPUs are the job's Ray has said in this process's environment, not the worker.
        here = environment_of(replace(job, accelerator=None), file)
        self._child = JobChild(job, partial(job_command, launcher=launcher), here)

    def node(self) -> str:
        return str(ray.util.get_node_ip_address())

    def listen(self, seconds: float) -> tuple[bool, list[tuple[datetime, str]]]:
        """Whether it has ended after so long, and what it wrote since the last call."""
        ended = self._child.wait(seconds)
        if ended:
            self._child.drain()
        return ended, self._child.lines()

    def terminate(self) -> None:
        self._child.terminate()

    def close(self) -> dict[str, Any]:
        """How it ended; nothing of it is left."""
        outcome = self._child.outcome()
        self._child.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        return asdict(outcome)


class PlacedJob:
    """A job from the wish for a place to its end."""

    def __init__(self, settings: Settings, job: JobRecord) -> None:
        self._job = job
        self._worker = settings.worker
        self._asked_to_stop = 0
        self._passed_on = 0
        self._variables = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
        file = settings_file()
        self._config = file.read_text() if file.is_file() else ""
        self._variables |= {"CHECKLOOP_HOME": str(settings.home.resolve()), "CHECKLOOP_DATABASE_URL": settings.url}

    def stop(self) -> None:
        """From a signal handler: as a job's process takes it, at the end of a piece; asked again, at once."""
        self._asked_to_stop += 1

    def run(self) -> dict[str, Any]:
        """How the job ended. Raises RayError if the place is lost."""
        needs = self._needs()
        place = ray.remote(max_restarts=0, max_concurrency=2, **needs)(Place)
        actor = place.remote(self._job, self._worker.launcher, self._variables, self._config)
        try:
            if not self._wait_for_place(actor, needs):
                return {"reason": ExitReason.STOPPED, "result": None, "error": "stopped before it had a place"}
            ended = False
            while not ended:
                if self._passed_on < self._asked_to_stop:
                    self._passed_on += 1
                    ray.get(actor.terminate.remote())
                ended, lines = ray.get(actor.listen.remote(POLL_S))
                for _, text in lines:
                    print(text, flush=True)
            return dict(ray.get(actor.close.remote(), timeout=CLOSE_S))
        finally:
            ray.kill(actor)

    def _needs(self) -> dict[str, float]:
        """CPUs, and for a job that trains GPUs, where the cluster has any."""
        needs: dict[str, float] = {"num_cpus": self._worker.ray_cpus}
        if self._job.kind in MAKE_CANDIDATES and ray.cluster_resources().get("GPU", 0):
            needs["num_gpus"] = self._worker.ray_gpus
        return needs

    def _wait_for_place(self, actor: Any, needs: dict[str, float]) -> bool:
        """False if it is to stop meanwhile."""
        asked = actor.node.remote()
        began, said = time.monotonic(), False
        while not ray.wait([asked], timeout=POLL_S)[0]:
            if self._asked_to_stop:
                return False
            if not said and time.monotonic() - began > SAY_AFTER_S:
                wanted = ", ".join(f"{value:g} {name[4:-1].upper()}" for name, value in needs.items())
                print(f"waits for a place on the Ray cluster ({wanted})", flush=True)
                said = True
        print(f"placed on {ray.get(asked)}", flush=True)
        return True


def main(job_id: int, claim: int, outcome_file: Path) -> None:
    settings = load_settings()
    log = open_log(settings.url, settings.log.durability)
    threading.Thread(target=end_with_worker, daemon=True).start()
    try:
        outcome = _placed(log, settings, job_id, claim)
    except RayError as error:
        said = f"its place on the Ray cluster is lost: {' '.join(str(error).split())[:500]}"
        outcome = {"reason": ExitReason.MACHINE, "result": None, "error": said}
    except Exception as error:  # the job's boundary, as in train/job_process.py
        outcome = failure_of(error)
    finally:
        log.close()
        ray.shutdown()
    write_outcome(outcome_file, outcome)


def _placed(log: Log, settings: Settings, job_id: int, claim: int) -> dict[str, Any]:
    job = get_job(log, job_id)
    if job.claims != claim:
        raise LogError(f"job {job_id} was taken over before it began")
    placed = PlacedJob(settings, job)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: placed.stop())
    _connect(settings)
    signal.signal(signal.SIGTERM, lambda number, frame: placed.stop())  # Ray has put its own there
    return placed.run()


def _connect(settings: Settings) -> None:
    """Raises JobRefused where there is no cluster, or where its machines cannot share the log."""
    address = settings.worker.ray_address
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would ask for a minute
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise JobRefused(f"no Ray cluster answers at {address!r} (worker.ray_address): {error}") from error
    refuse_file(settings.url, sum(node["Alive"] for node in ray.nodes()))


def refuse_file(url: str, nodes: int) -> None:
    """Raises JobRefused for a SQLite log if there are several machines."""
    if url.startswith("sqlite") and nodes > 1:
        raise JobRefused(
            f"the Ray cluster has {nodes} machines, but the log is a SQLite file of this one: set database_url to a "
            "PostgreSQL database"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
