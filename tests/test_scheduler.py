"""Schedules fire when they are due, once, and as their policies say; on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

from store.database import Log, LogError
from store.jobs import JobRecord, list_jobs
from store.leases import end_job
from store.scenarios import item_ids
from store.schedules import (
    Firing,
    ScheduleRecord,
    fire_schedule,
    get_schedule,
    list_firings,
    list_schedules,
    remove_schedule,
)
from store.schema import now
from store.verdicts import Verdict, add_verdicts
from store.vocabulary import ExitReason, FiringOutcome, JobStatus, MissedRuns, Origin, Outcome, Overlap, VerdictSource
from tests.job_examples import START, claim, submit, take
from tests.store_examples import a_scenario, start
from train.errors import JobRefused
from train.job_payloads import read_jobs
from train.scheduler import create_schedule, edit_schedule, fire_due, pause_schedule, resume_schedule, run_schedule
from train.triggers import AfterJob, CronTimes, JudgedTurns, Trigger

HOURLY = CronTimes(expression="0 * * * *")
FAR = timedelta(days=3650)
"""Jobs of fired schedules are ready at the firing's time; claims far in the future see them all."""


def schedule(
    log: Log,
    trigger: Trigger = HOURLY,
    jobs: str = "judge prune",
    missed: MissedRuns = MissedRuns.ONCE,
    overlap: Overlap = Overlap.SKIP,
) -> ScheduleRecord:
    """Made at START, noon."""
    return create_schedule(log, "nightly", trigger, read_jobs(jobs.split()), at=START, missed=missed, overlap=overlap)


def fire(log: Log, minutes: float) -> list[Firing]:
    said: list[str] = []
    fired = fire_due(log, START + timedelta(minutes=minutes), 300.0, said.append)
    assert len(said) == len(fired)
    return fired


def finish(log: Log, *, reason: ExitReason = ExitReason.DONE) -> list[JobRecord]:
    """Everything that is queued gets done."""
    done = []
    while list_jobs(log, status=JobStatus.QUEUED):
        done.append(take(log, FAR.total_seconds()))
        end_job(log, done[-1], reason)
    return done


def test_a_cron_schedule_queues_its_pipeline_each_time_it_is_due(log: Log) -> None:
    assert schedule(log).next_due == START + timedelta(hours=1)
    assert fire(log, 59) == []
    (first,) = fire(log, 60)
    assert (first.outcome, first.due) == (FiringOutcome.QUEUED, "2026-11-20T13:00:00Z")
    assert fire(log, 61) == []
    jobs = list_jobs(log, schedule="nightly")
    assert [(job.kind, job.position, job.pipeline) for job in reversed(jobs)] == [
        ("judge", 0, first.pipeline),
        ("prune", 1, first.pipeline),
    ]
    assert first.pipeline is not None and first.pipeline.startswith("nightly-20261120T130000Z-")
    finish(log)
    (second,) = fire(log, 121)
    assert second.due == "2026-11-20T14:00:00Z" and second.pipeline != first.pipeline
    state = get_schedule(log, "nightly")
    assert (state.last_fired, state.next_due) == (START + timedelta(minutes=121), START + timedelta(hours=3))


def test_workers_that_look_at_once_fire_a_due_time_once(log: Log) -> None:
    schedule(log)
    barrier = Barrier(6)

    def one(_: int) -> list[Firing]:
        barrier.wait()
        return fire_due(log, START + timedelta(hours=1), 300.0, lambda said: None)

    with ThreadPoolExecutor(6) as threads:
        fired = [firing for many in threads.map(one, range(6)) for firing in many]
    assert len(fired) == 1 and len(list_jobs(log)) == 2


def test_times_that_were_missed_are_made_up_for_by_one_run(log: Log) -> None:
    schedule(log)
    (late,) = fire(log, 5 * 60 + 40)
    assert (late.outcome, late.due) == (FiringOutcome.QUEUED, "2026-11-20T17:00:00Z")
    assert len(list_jobs(log)) == 2
    assert get_schedule(log, "nightly").next_due == START + timedelta(hours=6)


def test_times_that_were_missed_are_left_out_where_that_is_the_policy(log: Log) -> None:
    schedule(log, missed=MissedRuns.SKIP)
    (late,) = fire(log, 5 * 60 + 40)
    assert (late.outcome, late.reason) == (FiringOutcome.MISSED, "no worker ran until 2026-11-20 17:40 UTC")
    assert list_jobs(log) == []
    (in_time,) = fire(log, 6 * 60 + 4)
    assert in_time.outcome is FiringOutcome.QUEUED, "four minutes late is in time"


def test_a_schedule_that_is_due_while_its_pipeline_runs_leaves_that_time_out(log: Log) -> None:
    schedule(log)
    fire(log, 60)
    end_job(log, take(log, FAR.total_seconds()), ExitReason.DONE)
    (left_out,) = fire(log, 120)
    assert (left_out.outcome, left_out.reason) == (FiringOutcome.OVERLAP, "its last pipeline is unfinished")
    finish(log)
    assert [firing.outcome for firing in fire(log, 180)] == [FiringOutcome.QUEUED]


def test_or_queues_it_behind_that_up_to_a_limit(log: Log) -> None:
    schedule(log, overlap=Overlap.QUEUE, jobs="judge")
    outcomes = [fire(log, 60 * hour)[0].outcome for hour in range(1, 19)]
    assert outcomes == [FiringOutcome.QUEUED] * 16 + [FiringOutcome.OVERLAP] * 2
    first = take(log, FAR.total_seconds())
    assert claim(log, FAR.total_seconds(), owner="w2") is None, "the others wait for the first, however many workers"
    end_job(log, first, ExitReason.REFUSED)
    assert take(log, FAR.total_seconds()).id > first.id


def judge_turns(log: Log, *names: str, outcome: Outcome = Outcome.FAIL, counts: bool = True, **fields: object) -> None:
    """One verdict on turn 0 and one on turn 1 of each."""
    scenario = a_scenario()
    start(log, *names, scenario=scenario, **fields)
    ids = item_ids(log, scenario.hash)
    add_verdicts(
        log,
        [
            Verdict(
                name,
                turn,
                ids[turn, key],
                key,
                outcome,
                None,
                VerdictSource.CODE,
                "checks",
                None,
                "",
                "",
                counts=counts,
            )
            for name in names
            for turn, key in ((0, "asks-weather"), (0, "umbrella"), (1, "answers-thanks"))
        ],
    )


def test_judged_turns_are_counted_since_the_schedule_last_fired(log: Log) -> None:
    judge_turns(log, "before")
    schedule(log, JudgedTurns(every=4), jobs="judge")
    judge_turns(log, "a")
    judge_turns(log, "unscored", outcome=Outcome.UNSCORED)
    judge_turns(log, "held-out", origin=Origin.EVALUATION)
    judge_turns(log, "spoken-beside", "one-vote", counts=False)
    assert fire(log, 1) == [], "two turns of four"
    judge_turns(log, "b")
    (fired,) = fire(log, 2)
    judge_turns(log, "its-own", batch=f"{fired.pipeline}/0")
    judge_turns(log, "c", "d")
    assert fire(log, 3) == [], "its pipeline is unfinished: the turns count on"
    finish(log)
    assert len(fire(log, 4)) == 1
    finish(log)
    assert fire(log, 5) == []


def test_judged_turns_wait_where_too_many_pipelines_do(log: Log) -> None:
    """As many as may wait do; the turns count on, and once there is room they fire it."""
    schedule(log, JudgedTurns(every=2), jobs="judge", overlap=Overlap.QUEUE)
    for n in range(16):
        judge_turns(log, f"t{n}")
        assert len(fire(log, n)) == 1
    judge_turns(log, "one-more")
    assert fire(log, 20) == fire(log, 21) == []
    late = fire_schedule(log, get_schedule(log, "nightly"), "judged since verdict 1", at=START, waits=True)
    assert late is None, "a worker that looked a moment earlier"
    end_job(log, take(log, FAR.total_seconds()), ExitReason.DONE)
    (fired,) = fire(log, 22)
    assert fired.outcome is FiringOutcome.QUEUED
    finish(log)
    judge_turns(log, "after-all-that")
    assert len(fire(log, 23)) == 1


def test_a_schedule_follows_each_job_of_a_kind_that_is_done_but_not_its_own(log: Log) -> None:
    submit(log, "rollout")
    end_job(log, take(log), ExitReason.DONE)
    schedule(log, AfterJob(job="rollout"), jobs="judge rollout", overlap=Overlap.QUEUE)  # type: ignore[arg-type]
    assert fire(log, 1) == [], "that was before its time"
    ids = submit(log, "rollout") + submit(log, "rollout") + submit(log, "rollout")
    for reason in (ExitReason.DONE, ExitReason.REFUSED, ExitReason.DONE):
        end_job(log, take(log), reason)
    assert [firing.due for firing in fire(log, 2)] == [f"job {ids[0]}", f"job {ids[2]}"]
    finish(log)
    assert fire(log, 3) == []


def test_a_paused_schedule_waits_and_what_happened_meanwhile_does_not_count(log: Log) -> None:
    schedule(log)
    pause_schedule(log, "nightly")
    assert fire(log, 60) == []
    resumed = resume_schedule(log, "nightly", START + timedelta(minutes=150))
    assert resumed.next_due == START + timedelta(hours=3)
    assert fire(log, 151) == [] and len(fire(log, 180)) == 1


def test_a_schedule_is_changed_and_counts_from_then_on(log: Log) -> None:
    schedule(log)
    at = START + timedelta(minutes=90)
    edit_schedule(log, "nightly", at=at, trigger=CronTimes(expression="30 3 * * *"), zone="Europe/Berlin")
    edit_schedule(log, "nightly", at=at, jobs=read_jobs(["prune"]), overlap=Overlap.QUEUE)
    changed = get_schedule(log, "nightly")
    assert changed.next_due == START.replace(day=21, hour=2, minute=30)
    assert ([job.kind for job in changed.jobs], changed.overlap, changed.missed) == (["prune"], "queue", "once")
    assert fire(log, 91) == []
    with pytest.raises(LogError, match="no schedule 'weekly'"):
        edit_schedule(log, "weekly", at=at)


def test_a_person_runs_it_whatever_its_policies_say(log: Log) -> None:
    schedule(log)
    fire(log, 60)
    pause_schedule(log, "nightly")
    firing = run_schedule(log, "nightly", START + timedelta(minutes=61))
    assert (firing.outcome, firing.reason) == (FiringOutcome.QUEUED, "by hand")
    assert len(list_jobs(log, schedule="nightly")) == 4
    assert [one.reason for one in list_firings(log, "nightly")] == ["by hand", ""]


def test_a_removed_schedule_leaves_its_jobs(log: Log) -> None:
    schedule(log)
    fire(log, 60)
    assert remove_schedule(log, "nightly") == 2
    assert list_schedules(log) == [] and len(list_jobs(log)) == 2
    assert len(finish(log)) == 2
    schedule(log)
    assert list_firings(log, "nightly") == []


def test_names_that_are_taken_or_no_names_are_refused(log: Log) -> None:
    schedule(log)
    with pytest.raises(LogError, match="already"):
        schedule(log)
    for name in ("", "two words", "x" * 65, "%"):
        with pytest.raises(JobRefused, match="no name for a schedule"):
            create_schedule(log, name, HOURLY, read_jobs(["prune"]), at=now())
