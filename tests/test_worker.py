"""Workers: what becomes of jobs that work, fail, hang, are cancelled, or lose their worker.

Most jobs here are small scripts in the place of the real ones; the last tests run the real command, processes and all.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

import checkloop
from store.database import Log, LogError, open_log
from store.job_log import read_lines
from store.jobs import JobRecord, cancel_job, get_job, list_jobs
from store.leases import take_back_lost
from store.records import Item, ScenarioTurn
from store.scenarios import item_ids
from store.settings import Settings, load_settings
from store.trajectories import end_trajectory
from store.verdicts import Verdict, add_verdicts, rewards_of
from store.versions import add_version, get_version, set_version_state
from store.vocabulary import ExitReason, FocusOn, JobStatus, Outcome, StopReason, VerdictSource, VersionState
from store.workers import list_workers
from tests.job_examples import START, submit, take
from tests.store_examples import a_scenario, record_chain, start
from train.job_child import JobChild, job_command
from train.worker import Worker, find_accelerators

ROOT = Path(__file__).resolve().parent.parent
SAYS = "import json, os, signal, sys, time; print('hello', flush=True)\n"
ENDS = SAYS + "open(sys.argv[1], 'w').write(json.dumps({'reason': %r, 'result': {'n': 1}, 'error': %r}))"
STUBBORN = SAYS + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
POLITE = SAYS + textwrap.dedent(
    """
    def stop(number, frame):
        print('the piece is done', flush=True)
        open(sys.argv[1], 'w').write(json.dumps({'reason': 'stopped', 'result': None, 'error': 'stopped'}))
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    print('ready', flush=True)
    time.sleep(60)
    """
)


class Scripted(Worker):
    """Its jobs are `scripts`, one a try, the last one again and again; its clock is moved by hand."""

    def __init__(self, log: Log, settings: Settings, *scripts: str) -> None:
        self.scripts = list(scripts)
        self.at = START
        self.said: list[str] = []
        super().__init__(
            log,
            settings,
            name="w1",
            accelerators=("cpu",),
            command=self._next,
            clock=lambda: self.at,
            say=self.said.append,
        )

    def _next(self, job: JobRecord, outcome_file: Path) -> Sequence[str]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return [sys.executable, "-S", "-c", script, str(outcome_file)]

    def later(self, seconds: float) -> int:
        self.at += timedelta(seconds=seconds)
        return self.run(once=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    worker = {"lease_s": 30, "poll_s": 0.1, "interrupt_after_s": 0.2, "kill_after_s": 0.5}
    return load_settings(home=tmp_path / "home", worker=worker)


def texts(log: Log, job_id: int) -> list[str]:
    return [line.text for line in read_lines(log, job_id)]


def run_beside(worker: Worker) -> threading.Thread:
    thread = threading.Thread(target=worker.run, kwargs={"once": True})
    thread.start()
    return thread


def wait_for_line(log: Log, job_id: int, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in texts(log, job_id):
        assert time.monotonic() < deadline, f"job {job_id} never said {text!r}: {texts(log, job_id)}"
        time.sleep(0.05)


def test_a_job_that_works(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "judge")
    worker = Scripted(sqlite_log, settings, ENDS % ("done", None))
    assert worker.run(once=True) == 1
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.exit_reason, job.result, job.error) == (JobStatus.DONE, ExitReason.DONE, {"n": 1}, None)
    assert texts(sqlite_log, job_id) == ["-- try 1 of 3, worker w1", "hello", "-- done"]
    (known,) = list_workers(sqlite_log)
    assert (known.name, known.accelerators, known.pid) == ("w1", ("cpu",), os.getpid())
    assert known.stopped_at is not None


def test_a_server_in_trouble_is_tried_again_later_and_later(sqlite_log: Log, settings: Settings) -> None:
    first, second = submit(sqlite_log, "rollout", "judge")
    worker = Scripted(sqlite_log, settings, ENDS % ("server", "503"), ENDS % ("server", "503"), ENDS % ("done", None))
    assert worker.run(once=True) == 1
    job = get_job(sqlite_log, first)
    assert (job.status, job.exit_reason, job.run_after) == (
        JobStatus.QUEUED,
        ExitReason.SERVER,
        START + timedelta(seconds=30),
    )
    assert (worker.later(29), worker.later(1), worker.later(119)) == (0, 1, 0)
    assert worker.later(1) == 2, "it and the one that waited for it"
    assert {get_job(sqlite_log, one).status for one in (first, second)} == {JobStatus.DONE}
    assert "-- server: 503; again at 2026-11-20 12:00:30 UTC" in texts(sqlite_log, first)


@pytest.mark.parametrize(
    ("script", "reason", "said"),
    [
        (ENDS % ("refused", "too much is excluded"), ExitReason.REFUSED, "too much is excluded"),
        (SAYS + "sys.exit(3)", ExitReason.CRASHED, "ended with status 3"),
        (SAYS + "os.kill(os.getpid(), signal.SIGSEGV)", ExitReason.CRASHED, "died of SIGSEGV"),
        (SAYS + "os.kill(os.getpid(), signal.SIGKILL)", ExitReason.MEMORY, "most likely because memory ran out"),
        (SAYS + "os.kill(os.getpid(), signal.SIGTERM)", ExitReason.CRASHED, "died of SIGTERM"),
    ],
)
def test_a_job_that_does_not_work_says_why(
    sqlite_log: Log, settings: Settings, script: str, reason: ExitReason, said: str
) -> None:
    first, second = submit(sqlite_log, "train", "gate", max_attempts=1)
    Scripted(sqlite_log, settings, script).run(once=True)
    job = get_job(sqlite_log, first)
    assert (job.status, job.exit_reason) == (JobStatus.FAILED, reason)
    assert job.error is not None and said in job.error
    assert texts(sqlite_log, first)[1] == "hello" and texts(sqlite_log, first)[-1].startswith(f"-- failed ({reason})")
    assert get_job(sqlite_log, second).status is JobStatus.CANCELLED


def test_a_process_that_cannot_be_started_is_tried_again(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "judge")
    worker = Scripted(sqlite_log, settings, "")
    worker._command = lambda job, outcome_file: ["/no/such/program"]
    worker.run(once=True)
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.exit_reason, job.run_after) == ("queued", "machine", START + timedelta(seconds=10))
    assert job.error is not None and "/no/such/program" in job.error


def test_many_lines_stand_in_order_and_broken_text_does_no_harm(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "judge")
    script = "import os\nfor n in range(3000): print(n)\nos.write(1, b'10 %\\r20 %\\n\\xff\\xfe\\n')\n" + ENDS % (
        "done",
        "",
    )
    Scripted(sqlite_log, settings, script).run(once=True)
    lines = read_lines(sqlite_log, job_id)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    said = [line.text for line in lines]
    numbers = [text for text in said if text.isdigit()]
    assert sorted(numbers, key=int) == [str(n) for n in range(3000)]
    assert {"20 %", "��"} <= set(said)


def test_a_job_is_cancelled_at_the_end_of_a_piece(sqlite_log: Log, settings: Settings) -> None:
    first, second = submit(sqlite_log, "rollout", "judge")
    working = run_beside(Scripted(sqlite_log, settings, POLITE))
    wait_for_line(sqlite_log, first, "ready")
    cancel_job(sqlite_log, first)
    working.join(20)
    assert get_job(sqlite_log, first).exit_reason is ExitReason.CANCELLED
    assert get_job(sqlite_log, second).exit_reason is ExitReason.EARLIER
    assert texts(sqlite_log, first)[-2:] == ["-- cancelled", "the piece is done"]


def test_a_job_that_does_not_listen_is_killed(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "judge")
    working = run_beside(Scripted(sqlite_log, settings, STUBBORN))
    wait_for_line(sqlite_log, job_id, "ready")
    cancel_job(sqlite_log, job_id)
    working.join(20)
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.error) == (JobStatus.CANCELLED, "it did not stop by itself and was killed")


def test_a_worker_that_is_told_to_stop_puts_its_job_back(sqlite_log: Log, settings: Settings) -> None:
    (job_id,) = submit(sqlite_log, "train")
    worker = Scripted(sqlite_log, settings, POLITE, ENDS % ("done", None))
    working = run_beside(worker)
    wait_for_line(sqlite_log, job_id, "ready")
    worker.stop()
    working.join(20)
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.exit_reason, job.attempts) == (JobStatus.QUEUED, ExitReason.STOPPED, 0)
    assert Scripted(sqlite_log, settings, ENDS % ("done", None)).run(once=True) == 1
    assert get_job(sqlite_log, job_id).status is JobStatus.DONE


def test_a_worker_whose_lease_was_lost_ends_the_job_and_says_nothing_in_its_name(
    sqlite_log: Log, settings: Settings
) -> None:
    (job_id,) = submit(sqlite_log, "judge")
    worker = Scripted(sqlite_log, settings, STUBBORN, ENDS % ("done", None))
    working = run_beside(worker)
    wait_for_line(sqlite_log, job_id, "ready")
    assert take_back_lost(sqlite_log, START + timedelta(days=1)) == 1
    working.join(20)
    job = get_job(sqlite_log, job_id)
    assert (job.status, job.attempts, job.claims) == (JobStatus.DONE, 2, 2), "taken again, as by any worker"
    assert any("its lease is lost" in said for said in worker.said)
    assert texts(sqlite_log, job_id)[3:] == ["-- try 2 of 3, worker w1", "hello", "-- done"]


def test_a_job_ends_with_its_lease_while_the_database_does_not_answer(
    sqlite_log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a broken network: the renewal neither works nor fails, and another worker may have the job by now."""
    killed, answers = threading.Event(), threading.Event()
    kill = JobChild.kill

    def hangs(*_: object) -> None:
        answers.wait(20)
        raise LogError("the connection to server was lost")

    def seen(child: JobChild) -> None:
        kill(child)
        killed.set()

    monkeypatch.setattr("train.job_watch.renew_lease", hangs)
    monkeypatch.setattr(JobChild, "kill", seen)
    (job_id,) = submit(sqlite_log, "judge")
    short = settings.model_copy(update={"worker": settings.worker.model_copy(update={"lease_s": 0.5})})
    worker = Scripted(sqlite_log, short, STUBBORN)
    working = run_beside(worker)
    try:
        assert killed.wait(15)
    finally:
        answers.set()
    working.join(20)
    assert any("its lease is lost" in said for said in worker.said)
    assert get_job(sqlite_log, job_id).status is JobStatus.RUNNING, "nothing is said in its name"


def test_containers_of_one_machine_have_its_accelerator_one_at_a_time(
    sqlite_log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = settings.model_copy(update={"worker": settings.worker.model_copy(update={"host": "anna"})})
    workers = []
    for container in ("c1", "c2"):
        monkeypatch.setattr(socket, "gethostname", lambda container=container: container)
        workers.append(Worker(sqlite_log, named, accelerators=("cuda:0",), say=lambda said: None))
    assert [worker.name for worker in workers] == [f"c1-{os.getpid()}", f"c2-{os.getpid()}"]
    submit(sqlite_log, "train")
    submit(sqlite_log, "train")
    first = workers[0]._next_job()
    assert first is not None and (first.holds, first.lease_owner) == ("anna/cuda:0", workers[0].name)
    assert workers[1]._next_job() is None


def test_a_database_that_is_away_for_a_while_costs_nothing(
    sqlite_log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.job_watch

    failures = iter(range(3))
    real = train.job_watch.end_job

    def flaky(*arguments: object, **named: object) -> bool:
        for _ in failures:
            raise LogError("the connection to server was lost")
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(train.job_watch, "end_job", flaky)
    monkeypatch.setattr(train.job_watch, "LOOK_EVERY_S", 0.05)
    (job_id,) = submit(sqlite_log, "judge")
    worker = Scripted(sqlite_log, settings, ENDS % ("done", None))
    worker.run(once=True)
    assert get_job(sqlite_log, job_id).status is JobStatus.DONE
    assert sum("could not be written yet" in said for said in worker.said) == 3


def test_accelerators_are_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert find_accelerators() == ("cuda:2", "cuda:5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_accelerators() == ("cpu",)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Of real commands: a home of their own, short leases, a log on SQLite."""
    values = {
        "CHECKLOOP_HOME": str(tmp_path / "home"),
        "CHECKLOOP_WORKER__LEASE_S": "2",
        "CHECKLOOP_WORKER__POLL_S": "0.2",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `checkloop ARGUMENTS` prints, in this process."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["checkloop", *arguments])
        checkloop.main()
        return capsys.readouterr().out

    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "checkloop", *arguments]


def test_a_pipeline_that_a_schedule_queued_is_done_by_a_real_worker(
    environment: dict[str, str], typed: Callable[..., str]
) -> None:
    """Two judged turns make it due; the judge finds what is unjudged, and old weights are pruned."""
    settings = load_settings()
    log = open_log(settings.url)
    for number in range(1, 5):
        folder = settings.home / "versions" / f"v000{number}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"0" * 1000)
        add_version(log, f"v000{number}", parent=None, path=str(folder.resolve()), files={})
        set_version_state(log, f"v000{number}", VersionState.LIVE, "test")
    said = typed("schedule", "add", "often", "--every", "2-judged-turns", "judge", "prune", "keep=1")
    assert "every 2 judged turns, active" in said
    scenario = a_scenario()
    start(log, "judged", "waiting", scenario=scenario)
    for name in ("judged", "waiting"):
        record_chain(log, name, [([1, 2, 3], [10, 11])])
        end_trajectory(log, name, StopReason.COMPLETED)
    ids = item_ids(log, scenario.hash)
    add_verdicts(
        log,
        [
            Verdict("judged", turn, ids[turn, key], key, Outcome.FAIL, None, VerdictSource.CODE, "c", None, "", "")
            for turn, key in ((0, "asks-weather"), (1, "answers-thanks"))
        ],
    )
    worked = subprocess.run(command("worker", "--once"), env=environment, capture_output=True, text=True, timeout=600)
    assert worked.returncode == 0, worked.stderr + worked.stdout
    judge, prune = reversed(list_jobs(log, schedule="often"))
    assert (judge.status, prune.status) == (JobStatus.DONE, JobStatus.DONE), worked.stdout
    assert judge.result == {"judged": 2, "unscored": 0, "reward": 0.0}
    assert set(rewards_of(log, ["judged", "waiting"])) == {"judged", "waiting"}
    assert prune.result == {"versions": ["v0001", "v0002"], "freed_bytes": 2000}
    assert get_version(log, "v0001").figures["pruned"]["bytes"] == 1000
    assert [(settings.home / "versions" / f"v000{n}").is_dir() for n in range(1, 5)] == [False, False, True, True]
    lines = [line.split("  ", 1)[1] for line in typed("job", "log", str(judge.id), "--follow").splitlines()]
    assert lines[0].startswith("-- try 1 of 3") and lines[-1] == "-- done"
    assert f"job {prune.id}  prune  done" in typed("job", "show", str(prune.id))
    assert "queued often-" in typed("schedule", "show", "often")
    assert "ended" in typed("worker", "--list")
    log.close()


def test_jobs_and_schedules_on_the_command_line(environment: dict[str, str], typed: Callable[..., str]) -> None:
    assert (
        typed("job", "submit", "rollout", "scenarios=4", "judge", "--attempts", "1") == "job 1: rollout\njob 2: judge\n"
    )
    assert typed("job", "cancel", "1") == "job 1 is cancelled\n"
    newest, oldest = typed("job", "list").splitlines()
    assert newest.split()[:4] == ["2", "judge", "cancelled", "0/1"] and newest.endswith(
        "job 1 before it did not get done"
    )
    assert oldest.split()[:3] == ["1", "rollout", "cancelled"]
    typed("job", "retry", "1")
    assert len(typed("job", "list", "--status", "queued").splitlines()) == 2
    assert '"scenarios": 4' in typed("job", "show", "1")
    said = typed(
        "schedule", "add", "nightly", "--cron", "0 3 * * *", "--tz", "Europe/Berlin", "judge", "prune", "keep=2"
    )
    assert "0 3 * * * (Europe/Berlin), active" in said and said.count("next: ") == 5
    assert "jobs: train\n" in typed("schedule", "edit", "nightly", "train", "--overlap", "queue")
    typed("schedule", "pause", "nightly")
    assert "paused" in typed("schedule", "list")
    assert "overlap: queue" in typed("schedule", "resume", "nightly")
    assert typed("schedule", "remove", "nightly") == "nightly is removed\n"


def test_a_job_whose_worker_is_gone_ends_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    """Its judge never answers, so it is in the middle of a piece: it is interrupted there."""
    log = open_log(load_settings().url)
    item = Item(id="kind", focus_on=FocusOn.REPLY, question="Is it kind?", weight=1.0)
    start(log, "t", scenario=a_scenario(turns=(ScenarioTurn(user="hello", checklist=(item,)),)))
    record_chain(log, "t", [([1, 2, 3], [10, 11])])
    end_trajectory(log, "t", StopReason.COMPLETED)
    submit(log, "judge")
    job, outcome = take(log), tmp_path / "outcome.json"
    with socket.create_server(("127.0.0.1", 0)) as judge:
        judge.settimeout(60)
        url = f"http://127.0.0.1:{judge.getsockname()[1]}/v1"
        process = subprocess.Popen(
            job_command(job, outcome),
            stdin=subprocess.PIPE,
            env=environment | {"CHECKLOOP_JUDGE__BASE_URL": url, "CHECKLOOP_JUDGE__MODEL": "silent"},
        )
        asked, _ = judge.accept()
        assert process.stdin is not None and process.poll() is None
        process.stdin.close()
        assert process.wait(20) == 0
        asked.close()
    assert json.loads(outcome.read_text())["reason"] == "stopped"
    log.close()


SLOW_WORKER = """
import sys, time
from pathlib import Path
from store.database import open_log
from store.settings import load_settings
from train.worker import Worker
settings = load_settings()
script = "import os, time; print('running', os.getpid(), flush=True); os.read(0, 1); time.sleep(30)"
Worker(open_log(settings.url), settings, name="doomed", command=lambda job, file: [sys.executable, "-c", script]).run()
"""


def test_a_worker_that_is_killed_loses_its_job_to_another(environment: dict[str, str]) -> None:
    log = open_log(load_settings().url)
    (job_id,) = submit(log, "prune")
    doomed = subprocess.Popen([sys.executable, "-c", SLOW_WORKER], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(texts(log, job_id)) < 2:
        assert time.monotonic() < deadline and doomed.poll() is None
        time.sleep(0.1)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert get_job(log, job_id).lease_owner == "doomed"
    other = subprocess.Popen(command("worker", "--name", "other"), env=environment, stdout=subprocess.PIPE, text=True)
    while get_job(log, job_id).status is not JobStatus.DONE:
        assert time.monotonic() < deadline and other.poll() is None
        time.sleep(0.1)
    job = get_job(log, job_id)
    assert (job.lease_owner, job.attempts, job.claims, job.result) == (
        "other",
        2,
        2,
        {"versions": [], "freed_bytes": 0},
    )
    assert texts(log, job_id)[-3:] == ["-- try 2 of 3, worker other", "100 %  0 versions, 0 MiB", "-- done"]
    other.send_signal(signal.SIGTERM)
    assert other.wait(20) == 0
    stopped = {worker.name: worker.stopped_at for worker in list_workers(log)}
    assert stopped["other"] is not None and stopped["doomed"] is None
    log.close()
