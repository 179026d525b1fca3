"""Jobs taken and run in the test's own process, and what stands in for the gateway that they talk to."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from store.database import Log
from store.jobs import JobRecord, NewJob, get_job, submit_pipeline
from store.leases import end_job
from store.settings import Settings
from store.traffic import set_traffic_split
from store.versions import add_version, set_version_state
from store.vocabulary import ExitReason, JobKind, VersionState
from tests.job_examples import take
from train.job_kinds import run_job
from train.job_process import JobProgress
from train.job_work import Work
from train.progress import Stage

FAR = 1e9


class StandInGateway:
    """In the place of JobGateway and of the gateway that it opens: says yes, and remembers what it was told."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.told: list[str] = []
        self.accepts = True
        self.shared = True

    def open(self) -> "StandInGateway":
        return self

    def is_shared(self) -> bool:
        return self.shared

    def bring_back_live(self) -> None:
        self.told.append("bring back live")

    def split(self, candidate: str | None, share: float, reason: str) -> dict[str, Any]:
        self.told.append(f"split {candidate} {share:g}")
        set_traffic_split(self.log, candidate, share, reason)
        return {}

    def stage(self, version: str) -> dict[str, Any]:
        self.told.append(f"stage {version}")
        return {"accepted": self.accepts, "proof": {"reason": "other logprobs"}}

    def promote(self, version: str, reason: str) -> dict[str, Any]:
        self.told.append(f"promote {version}")
        set_version_state(self.log, version, VersionState.LIVE, reason)
        return {"accepted": True, "drain_s": 0.1}


def pipeline(log: Log, *jobs: tuple[str, dict[str, Any]]) -> None:
    submit_pipeline(log, [NewJob(JobKind(kind), payload) for kind, payload in jobs])


def work(log: Log, settings: Settings, gateway: Any, job: JobRecord | None = None, stop: bool = False) -> Work:
    """The next job, taken."""
    progress = JobProgress(lambda: stop)
    return Work(log, settings, job or take(log, FAR), Stage(progress, "job", "job"), gateway)


def done(log: Log, one: Work) -> dict[str, Any]:
    """Its result, with which it is ended."""
    result = run_job(one)
    json.dumps(result, allow_nan=False)
    assert end_job(log, one.job, ExitReason.DONE, result=result)
    return result


def again(log: Log, one: Work) -> Work:
    """The job as whoever takes it over finds it."""
    return replace(one, job=get_job(log, one.job.id))


def versions(log: Log, folder: Path, states: str) -> None:
    """`L`ive (the last one stays it), `C`andidate, `R`efused, each with a file, in order of their names."""
    for number, state in enumerate(states, start=1):
        name = f"v{number:04d}"
        directory = folder / name
        directory.mkdir(parents=True)
        (directory / "model.safetensors").write_bytes(b"0" * 100)
        add_version(log, name, parent=None, path=str(directory.resolve()), files={})
        if state != "C":
            set_version_state(log, name, VersionState.LIVE if state == "L" else VersionState.REFUSED, "test")
