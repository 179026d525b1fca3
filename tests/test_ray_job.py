"""Jobs on a real Ray cluster of one node: placed, cancelled, their place lost, no cluster. What trains is a script."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.ports import free_ports
from store.database import Log
from store.job_log import read_lines
from store.jobs import cancel_job, get_job
from store.settings import Settings, load_settings
from store.vocabulary import ExitReason, JobStatus
from tests.job_examples import submit
from train.errors import JobRefused
from train.ray_job import refuse_file
from train.worker import Worker
from train.worker_commands import with_engine

ROOT = Path(__file__).resolve().parent.parent
POLITE = textwrap.dedent(
    """
    import json, os, signal, sys, time
    def stop(number, frame):
        print('the piece is done', flush=True)
        open(sys.argv[-1], 'w').write(json.dumps({'reason': 'stopped', 'result': None, 'error': 'stopped'}))
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    import threading
    def watch():
        while os.read(0, 4096): pass
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
    print('home', os.environ['CHECKLOOP_HOME'], flush=True)
    print('process', os.getpid(), 'below', os.getppid(), flush=True)
    time.sleep(120)
    """
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine alone."""
    port, _ = free_ports()
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets' paths must be short
    start = [str(Path(sys.executable).parent / "ray"), "start", "--head", f"--port={port}", "--num-cpus=2", "--block"]
    quiet = [
        "--min-worker-port=0",  # any: the range that Ray takes by itself may hold `port`, and then it does not start
        "--max-worker-port=0",
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--temp-dir={folder}",
        "--node-ip-address=127.0.0.1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_memory_monitor_refresh_ms": "0"}
    process = subprocess.Popen(
        [*start, *quiet], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    _wait_until_up(port)
    yield f"127.0.0.1:{port}"
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(port: int) -> None:
    """The whole cluster, not its first process alone. Who joins one that is half there may wait for ever."""
    asks = [sys.executable, "-c", f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); print(ray.nodes())"]
    deadline = time.monotonic() + 240
    tried: subprocess.CompletedProcess[str] | None = None
    while tried is None or "'Alive': True" not in tried.stdout:
        assert time.monotonic() < deadline, "no answer" if tried is None else tried.stderr
        time.sleep(0.5)
        with suppress(subprocess.TimeoutExpired):
            tried = subprocess.run(asks, capture_output=True, text=True, timeout=60)


@pytest.fixture
def settings(cluster: str, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    worker = {
        "engine": "ray",
        "ray_address": cluster,
        "launcher": [sys.executable, "-c", POLITE],
        "poll_s": 0.1,
        "interrupt_after_s": 5,
        "kill_after_s": 20,
    }
    values = {"CHECKLOOP_HOME": str(tmp_path / "home"), "CHECKLOOP_DATABASE_URL": sqlite_url, "PYTHONPATH": str(ROOT)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return _with(load_settings(), monkeypatch, worker)


def _with(settings: Settings, monkeypatch: pytest.MonkeyPatch, worker: dict[str, Any]) -> Settings:
    """The job's own process reads the environment, so that it says the same."""
    changed = settings.worker.model_validate(settings.worker.model_dump() | worker)
    monkeypatch.setenv("CHECKLOOP_WORKER", changed.model_dump_json())
    return settings.model_copy(update={"worker": changed})


def _texts(log: Log, job_id: int) -> list[str]:
    return [line.text for line in read_lines(log, job_id)]


class Working:
    """A worker in a thread, until nothing is ready."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self.worker = Worker(log, settings, name="w1", accelerators=("cpu",), say=lambda text: None)
        self._log = log
        self._thread = threading.Thread(target=self.worker.run, kwargs={"once": True})
        self._thread.start()

    def until(self, job_id: int, said: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 60
        while True:
            if found := [text for text in _texts(self._log, job_id) if said(text)]:
                return found[0]
            assert time.monotonic() < deadline and self._thread.is_alive(), _texts(self._log, job_id)
            time.sleep(0.1)

    def end(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()


def test_a_job_is_done_on_the_cluster(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "prune")
    Working(sqlite_log, settings).end()
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.exit_reason) == (JobStatus.DONE, ExitReason.DONE), _texts(sqlite_log, job_id)
    assert job.result == {"versions": [], "freed_bytes": 0}
    assert any(text.startswith("placed on ") for text in _texts(sqlite_log, job_id))


def test_a_cancelled_job_ends_at_the_end_of_its_piece(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "train")
    working = Working(sqlite_log, settings)
    said = working.until(job_id, lambda text: text.startswith("process "))
    assert f"home {settings.home.resolve()}" in _texts(sqlite_log, job_id)
    cancel_job(sqlite_log, job_id)
    working.end()
    assert get_job(sqlite_log, job_id).status is JobStatus.CANCELLED
    assert "the piece is done" in _texts(sqlite_log, job_id)
    assert not psutil.pid_exists(int(said.split()[1]))


def test_a_job_whose_place_is_lost_is_tried_again(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "train")
    working = Working(sqlite_log, settings)
    _, process, _, actor = working.until(job_id, lambda text: text.startswith("process ")).split()
    os.kill(int(actor), signal.SIGKILL)
    working.end()
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.exit_reason) == (JobStatus.QUEUED, ExitReason.MACHINE), job.error
    assert job.error is not None and "its place on the Ray cluster is lost" in job.error
    _wait_until_gone(int(process))


def test_a_job_ends_with_its_worker(sqlite_log: Log, settings: Settings) -> None:
    """What the worker started is killed with it (here: by hand); Ray ends the actor, the actor's process its own."""
    (job_id,) = submit(sqlite_log, "train")
    working = Working(sqlite_log, settings)
    _, process, _, actor = working.until(job_id, lambda text: text.startswith("process ")).split()
    placing = [p for p in psutil.Process().children() if "train.ray_job" in p.cmdline()]
    assert len(placing) == 1
    placing[0].kill()
    working.end()
    assert get_job(sqlite_log, job_id).exit_reason is ExitReason.MEMORY
    _wait_until_gone(int(actor))
    _wait_until_gone(int(process))


def test_a_job_that_waits_for_a_place_says_so_and_can_be_cancelled(
    sqlite_log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = submit(sqlite_log, "train")
    working = Working(sqlite_log, _with(settings, monkeypatch, {"ray_cpus": 64}))
    working.until(job_id, lambda text: text == "waits for a place on the Ray cluster (64 CPU)")
    cancel_job(sqlite_log, job_id)
    working.end()
    assert get_job(sqlite_log, job_id).status is JobStatus.CANCELLED


def test_without_a_cluster_it_is_tried_again(
    sqlite_log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = submit(sqlite_log, "prune")
    nowhere = f"127.0.0.1:{free_ports()[0]}"
    Working(sqlite_log, _with(settings, monkeypatch, {"ray_address": nowhere})).end()
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.exit_reason) == (JobStatus.QUEUED, ExitReason.MACHINE), job.error
    assert job.error is not None and f"no Ray cluster answers at {nowhere!r}" in job.error


def test_machines_do_not_share_a_file() -> None:
    refuse_file("sqlite:////home/log.db", 1)
    refuse_file("postgresql://db/checkloop", 3)
    with pytest.raises(JobRefused, match="has 3 machines, but the log is a SQLite file"):
        refuse_file("sqlite:////home/log.db", 3)


def test_engines_by_name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_engine(settings.worker, "process").engine == "process"
    with pytest.raises(JobRefused, match="there are process and ray"):
        with_engine(settings.worker, "slurm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JobRefused, match=r"checkloop\[ray\]"):
        with_engine(settings.worker, "ray")


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.2)
