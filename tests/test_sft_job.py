"""A cold start as a job of the queue: its version, its gate, and what it needs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from env_sim.scenario_generator import generate_scenarios
from store.database import Log
from store.jobs import get_job, submit_pipeline
from store.leases import end_job
from store.runs import list_runs
from store.scenarios import add_scenarios
from store.settings import DataSettings, Settings, load_settings
from store.versions import get_version
from store.vocabulary import ExitReason, JobStatus, Split, VersionState
from tests.job_examples import take
from tests.tiny_model import write_small_base, write_tiny_model
from train.errors import JobRefused
from train.job_gateway import JobGateway
from train.job_kinds import run_job
from train.job_payloads import read_jobs
from train.job_process import JobProgress
from train.job_work import Work
from train.progress import Stage
from train.scenario_filters import filter_scenarios
from train.sft_set import make_set

torch.set_num_threads(1)
FAR = 1e9


def taken(log: Log, settings: Settings) -> Work:
    stage = Stage(JobProgress(lambda: False), "job", "job")
    return Work(log, settings, take(log, FAR), stage, JobGateway(log, settings))


def test_a_cold_start_is_also_a_job_and_its_candidate_waits_for_the_gate(sqlite_log: Log, tmp_path: Path) -> None:
    base = write_small_base(write_tiny_model(tmp_path / "tiny"), tmp_path / "base")
    settings = load_settings(
        home=tmp_path / "home", database_url=sqlite_log.url, model={"source": str(base)}, sft={"epochs": 1}
    )
    submit_pipeline(sqlite_log, read_jobs(["sft", "gate"]))
    too_early = taken(sqlite_log, settings)
    with pytest.raises(JobRefused, match="`checkloop data` makes one"):
        run_job(too_early)
    assert end_job(sqlite_log, too_early.job, ExitReason.REFUSED, error="there is none")
    add_scenarios(sqlite_log, generate_scenarios(Split.TRAIN, 4, 3))
    filtered = filter_scenarios(sqlite_log, DataSettings())
    make_set(sqlite_log, tmp_path, filtered, {}, DataSettings(), lambda _: 1)

    results = []
    for words in (["sft", "gate"], ["sft", "seed=2"]):
        submit_pipeline(sqlite_log, read_jobs(words))
        for _ in [word for word in words if "=" not in word]:
            one = taken(sqlite_log, settings)
            results.append(run_job(one))
            assert end_job(sqlite_log, one.job, ExitReason.DONE, result=results[-1])
    first, gate, second = results
    assert first == {"version": "v0001", "live": True}
    assert gate == {"passed": None, "reason": "v0001 went live without a gate: no version was live before"}
    assert second == {"version": "v0002", "live": False}
    assert get_version(sqlite_log, "v0002").state is VersionState.CANDIDATE
    killed = replace(one, job=get_job(sqlite_log, one.job.id))
    assert run_job(killed) == second, "killed before its end was written: the version is there already"
    assert [run.status for run in list_runs(sqlite_log)] == [JobStatus.DONE, JobStatus.DONE]
