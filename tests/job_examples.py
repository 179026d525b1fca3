"""Jobs and claims for the tests of the queue, the scheduler and the worker."""

from datetime import UTC, datetime, timedelta
from typing import Any

from store.database import Log
from store.jobs import JobRecord, NewJob, submit_pipeline
from store.leases import Hold, claim_job
from store.vocabulary import JobKind

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ALL = {kind: Hold() for kind in JobKind}
ONE_CPU = ALL | {JobKind.TRAIN: Hold("cpu", "anna/cpu")}


def submit(log: Log, *kinds: str, **fields: Any) -> list[int]:
    """One pipeline of jobs that are ready at START."""
    return submit_pipeline(log, [NewJob(JobKind(kind), {}, **fields) for kind in kinds], run_after=START)


def claim(log: Log, seconds: float = 0.0, **changes: Any) -> JobRecord | None:
    """Takes a job `seconds` after START, for a minute."""
    arguments: dict[str, Any] = {"owner": "w1", "host": "anna", "offers": ALL, "lease_s": 60.0}
    return claim_job(log, **arguments | changes, at=START + timedelta(seconds=seconds))


def take(log: Log, seconds: float = 0.0, **changes: Any) -> JobRecord:
    job = claim(log, seconds, **changes)
    assert job is not None, "nothing was ready"
    return job
