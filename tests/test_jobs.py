"""The queue of jobs: who gets what, when, and what becomes of it, on both databases."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

from store.database import Log, LogError, open_log
from store.job_log import add_lines, newest_lines, read_lines
from store.jobs import JobRecord, NewJob, cancel_job, get_job, list_jobs, retry_job, submit_pipeline
from store.leases import Lease, end_job, look_at_lease, note_on_job, put_back, renew_lease, take_back_lost
from store.vocabulary import ExitReason, JobKind, JobStatus
from tests.job_examples import ALL, ONE_CPU, START, claim, submit, take

SPAWN = multiprocessing.get_context("spawn")


def statuses(log: Log, ids: list[int]) -> list[tuple[JobStatus, ExitReason | None]]:
    return [(get_job(log, one).status, get_job(log, one).exit_reason) for one in ids]


def test_the_higher_priority_goes_first_then_the_older_job_then_nothing(log: Log) -> None:
    first, second = submit(log, "judge") + submit(log, "prune")
    (urgent,) = submit(log, "evaluate", priority=5)
    assert [take(log).id for _ in range(3)] == [urgent, first, second]
    assert claim(log) is None
    job = get_job(log, urgent)
    assert (job.status, job.lease_owner, job.host, job.attempts, job.claims) == (JobStatus.RUNNING, "w1", "anna", 1, 1)
    assert job.lease_until == START + timedelta(seconds=60)


def test_a_job_waits_for_its_time_and_for_a_worker_that_does_its_kind(log: Log) -> None:
    (job,) = submit(log, "judge")
    assert claim(log, -1) is None
    assert claim(log, offers={JobKind.TRAIN: ALL[JobKind.TRAIN]}) is None
    assert claim(log, offers={}) is None
    assert take(log).id == job


def test_a_pipeline_goes_one_job_after_the_other(log: Log) -> None:
    ids = submit(log, "rollout", "judge", "train")
    rollout = take(log)
    assert claim(log) is None, "the next one waits"
    assert end_job(log, rollout, ExitReason.DONE, result={"groups": 4})
    assert take(log).id == ids[1]
    assert claim(log) is None
    assert get_job(log, ids[0]).result == {"groups": 4}


def test_a_failed_job_stops_the_rest_of_its_pipeline_until_it_is_tried_again(log: Log) -> None:
    ids = submit(log, "rollout", "judge", "train")
    end_job(log, take(log), ExitReason.DONE)
    end_job(log, take(log), ExitReason.REFUSED, error="too much is excluded")
    done, failed, cancelled = JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED
    expected = [(done, ExitReason.DONE), (failed, ExitReason.REFUSED), (cancelled, ExitReason.EARLIER)]
    assert statuses(log, ids) == expected
    assert get_job(log, ids[2]).error == f"job {ids[1]} before it did not get done"
    with pytest.raises(LogError, match=f"comes after job {ids[1]}, which is failed"):
        retry_job(log, ids[2])
    with pytest.raises(LogError, match="is done: only a failed or cancelled"):
        retry_job(log, ids[0])
    assert (retry_job(log, ids[1]).status, get_job(log, ids[2]).status) == (JobStatus.QUEUED, JobStatus.QUEUED)
    later = timedelta(days=3650).total_seconds()
    again = take(log, later)
    assert (again.id, again.attempts, again.error) == (ids[1], 1, None)


def _claim_all(url: str, owner: str, taken: "multiprocessing.queues.Queue[list[int]]") -> None:
    log = open_log(url)
    ids = []
    while (job := claim(log, owner=owner)) is not None:
        ids.append(job.id)
        end_job(log, job, ExitReason.DONE)
    taken.put(ids)
    log.close()


def test_of_a_hundred_jobs_none_is_taken_twice_by_three_processes(log: Log, log_url: str) -> None:
    submitted = [submit(log, "judge")[0] for _ in range(100)]
    taken: multiprocessing.queues.Queue[list[int]] = SPAWN.Queue()
    processes = [SPAWN.Process(target=_claim_all, args=(log_url, f"w{n}", taken)) for n in range(3)]
    for process in processes:
        process.start()
    ids = [one for _ in processes for one in taken.get(timeout=60)]
    for process in processes:
        process.join(30)
    assert sorted(ids) == submitted
    assert all(job.claims == 1 and job.status is JobStatus.DONE for job in list_jobs(log, limit=None))


def test_two_runs_never_train_on_one_accelerator(log: Log) -> None:
    first, second = submit(log, "train") + submit(log, "train")
    (judge,) = submit(log, "judge")
    running = take(log, offers=ONE_CPU)
    assert (running.id, running.accelerator, running.holds) == (first, "cpu", "anna/cpu")
    assert take(log, offers=ONE_CPU, owner="w2").id == judge, "other work goes on meanwhile"
    assert claim(log, offers=ONE_CPU, owner="w2") is None
    elsewhere = {JobKind.TRAIN: type(ALL[JobKind.TRAIN])("cpu", "berta/cpu")}
    assert take(log, offers=elsewhere, owner="w3").id == second
    end_job(log, running, ExitReason.DONE)


def test_workers_that_come_at_once_do_not_share_an_accelerator(log: Log) -> None:
    for _ in range(8):
        submit(log, "train")
    barrier = Barrier(8)

    def one(number: int) -> JobRecord | None:
        barrier.wait()
        return claim(log, offers=ONE_CPU, owner=f"w{number}")

    with ThreadPoolExecutor(8) as threads:
        taken = [job for job in threads.map(one, range(8)) if job is not None]
    assert len(taken) == 1
    assert len(list_jobs(log, status=JobStatus.RUNNING)) == 1


def test_a_job_whose_worker_died_is_taken_over_with_what_it_chose(log: Log) -> None:
    (job_id,) = submit(log, "train")
    dead = take(log, offers=ONE_CPU)
    note_on_job(log, dead, {"base": "v0003"})
    assert take_back_lost(log, START + timedelta(seconds=59)) == 0
    assert claim(log, 59, owner="w2") is None
    assert take_back_lost(log, START + timedelta(seconds=61)) == 1
    job = get_job(log, job_id)
    assert (job.status, job.exit_reason) == (JobStatus.QUEUED, ExitReason.LOST)
    assert job.error == "worker w1 was not heard of until its lease ran out"
    again = take(log, 61, owner="w2", offers=ONE_CPU)
    assert (again.id, again.attempts, again.claims, again.notes) == (job_id, 2, 2, {"base": "v0003"})


def test_a_worker_that_lost_its_job_can_say_nothing_more_about_it(log: Log) -> None:
    submit(log, "judge")
    old = take(log)
    add_lines(log, old, [(START, "from the first")])
    take_back_lost(log, START + timedelta(seconds=61))
    new = take(log, 61, owner="w2")
    assert renew_lease(log, old, START + timedelta(seconds=90)) is Lease.LOST
    assert look_at_lease(log, old) is Lease.LOST
    assert not end_job(log, old, ExitReason.DONE, result={})
    assert not put_back(log, old, ExitReason.SERVER, run_after=START, error="")
    assert not add_lines(log, old, [(START, "too late")])
    with pytest.raises(LogError, match="was taken over"):
        note_on_job(log, old, {})
    assert renew_lease(log, new, START + timedelta(seconds=600)) is Lease.KEPT
    assert take_back_lost(log, START + timedelta(seconds=500)) == 0
    assert [line.text for line in read_lines(log, new.id)] == ["from the first"]


def test_a_job_that_takes_its_workers_down_fails_in_the_end(log: Log) -> None:
    first, second = submit(log, "train", "gate", max_attempts=2)
    take(log)
    take_back_lost(log, START + timedelta(seconds=61))
    take(log, 61)
    take_back_lost(log, START + timedelta(seconds=200))
    assert statuses(log, [first, second]) == [
        (JobStatus.FAILED, ExitReason.LOST),
        (JobStatus.CANCELLED, ExitReason.EARLIER),
    ]


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked(log: Log) -> None:
    first, second, third = submit(log, "rollout", "judge", "train")
    running = take(log)
    assert look_at_lease(log, running) is Lease.KEPT
    assert cancel_job(log, first).status is JobStatus.RUNNING
    assert look_at_lease(log, running) is Lease.CANCEL
    assert renew_lease(log, running, START + timedelta(seconds=90)) is Lease.CANCEL
    assert cancel_job(log, second).exit_reason is ExitReason.CANCELLED
    assert get_job(log, third).exit_reason is ExitReason.EARLIER
    end_job(log, running, ExitReason.CANCELLED)
    with pytest.raises(LogError, match="is cancelled already"):
        cancel_job(log, first)
    with pytest.raises(LogError, match="there is no job 999"):
        cancel_job(log, 999)


def test_a_job_that_was_to_stop_is_not_started_again_when_its_worker_dies(log: Log) -> None:
    (job_id,) = submit(log, "judge")
    take(log)
    cancel_job(log, job_id)
    take_back_lost(log, START + timedelta(seconds=61))
    assert get_job(log, job_id).status is JobStatus.CANCELLED


def test_a_job_that_is_put_back_waits_and_counts_unless_its_worker_was_stopped(log: Log) -> None:
    submit(log, "judge")
    put_back(log, take(log), ExitReason.SERVER, run_after=START + timedelta(seconds=30), error="503")
    assert claim(log, 29) is None
    second = take(log, 30)
    assert second.attempts == 2
    put_back(log, second, ExitReason.STOPPED, run_after=START, error=None, counts=False)
    third = take(log)
    assert (third.attempts, third.claims) == (2, 3)


def test_lines_are_numbered_over_all_tries_and_read_from_where_one_stood(log: Log) -> None:
    submit(log, "judge")
    first = take(log)
    add_lines(log, first, [(START, "one"), (START, "two\0"), (START, "x" * 5000)])
    put_back(log, first, ExitReason.SERVER, run_after=START, error=None)
    second = take(log)
    add_lines(log, second, [(START, "four")])
    lines = read_lines(log, first.id)
    assert [(line.number, line.text[:4]) for line in lines] == [(1, "one"), (2, "two�"), (3, "xxxx"), (4, "four")]
    assert len(lines[2].text) == 4000
    assert [line.text for line in read_lines(log, first.id, after=3)] == ["four"]
    assert read_lines(log, first.id, after=1, limit=2) == lines[1:3]
    assert newest_lines(log, [first.id, 999]) == {first.id: lines[-1]}


def test_an_empty_pipeline_is_refused(log: Log) -> None:
    with pytest.raises(LogError, match="at least one job"):
        submit_pipeline(log, [])
    submit_pipeline(log, [NewJob(JobKind.PRUNE, {"keep": 1})])
    assert [job.payload for job in list_jobs(log, kind=JobKind.PRUNE)] == [{"keep": 1}]
