"""When schedules are due: cron times over the clock's changes, and what is refused."""

from datetime import UTC, datetime

import pytest

from store.vocabulary import ExitReason, JobKind
from train.errors import JobRefused
from train.job_payloads import describe_jobs, read_jobs
from train.retries import retry_delay
from train.triggers import AfterJob, CronTimes, JudgedTurns, choose_trigger, next_times, read_trigger, zone_of

BERLIN = "Europe/Berlin"


def cron(expression: str) -> CronTimes:
    trigger = read_trigger({"kind": "cron", "expression": expression})
    assert isinstance(trigger, CronTimes)
    return trigger


def local(times: list[datetime], zone: str = BERLIN) -> list[str]:
    return [time.astimezone(zone_of(zone)).strftime("%m-%d %H:%M %Z") for time in times]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def test_a_time_of_day_is_that_of_the_time_zone_in_summer_and_winter() -> None:
    times = next_times(cron("0 3 * * *"), BERLIN, utc(2026, 10, 23, 12), 3)
    assert times == [utc(2026, 10, 24, 1), utc(2026, 10, 25, 2), utc(2026, 10, 26, 2)]
    assert local(times) == ["10-24 03:00 CEST", "10-25 03:00 CET", "10-26 03:00 CET"]
    assert next_times(cron("0 3 * * *"), "UTC", utc(2026, 10, 23, 12), 1) == [utc(2026, 10, 24, 3)]


def test_a_time_that_the_clock_leaves_out_comes_as_soon_as_it_has_moved() -> None:
    """On 2026-03-29 the clock goes from 02:00 to 03:00."""
    times = next_times(cron("30 2 * * *"), BERLIN, utc(2026, 3, 28, 0), 3)
    assert local(times) == ["03-28 02:30 CET", "03-29 03:00 CEST", "03-30 02:30 CEST"]
    several = next_times(cron("0,30 2,3 * * *"), BERLIN, utc(2026, 3, 28, 23), 3)
    assert local(several) == ["03-29 03:00 CEST", "03-29 03:30 CEST", "03-30 02:00 CEST"], "once, not three times"


def test_a_time_that_comes_twice_fires_once() -> None:
    """On 2026-10-25 the clock goes from 03:00 back to 02:00, at 01:00 UTC."""
    trigger = cron("30 2 * * *")
    assert next_times(trigger, BERLIN, utc(2026, 10, 24, 12), 2) == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]
    within = utc(2026, 10, 25, 1, 10)  # 02:10 for the second time
    assert next_times(trigger, BERLIN, within, 1) == [utc(2026, 10, 26, 1, 30)], "02:30 has been"
    assert trigger.newest(within, zone_of(BERLIN)) == utc(2026, 10, 25, 0, 30)


def test_every_hour_is_every_real_hour() -> None:
    times = next_times(cron("0 * * * *"), BERLIN, utc(2026, 10, 24, 23, 30), 4)
    assert times == [utc(2026, 10, 25, hour) for hour in range(4)]


def test_the_newest_time_counts_the_present_second() -> None:
    trigger = cron("0 3 * * *")
    assert trigger.newest(utc(2026, 1, 2, 3), zone_of("UTC")) == utc(2026, 1, 2, 3)
    assert trigger.newest(datetime(2026, 1, 2, 2, 59, 59, 999999, tzinfo=UTC), zone_of("UTC")) == utc(2026, 1, 1, 3)
    assert next_times(trigger, "UTC", utc(2026, 1, 2, 3), 1) == [utc(2026, 1, 3, 3)]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("61 * * * *", "bad minute"),
        ("0 0 31 2 *", "no cron expression"),
        ("* * * *", "write five fields"),
        ("0 * * * * *", "write five fields"),
        ("@daily", "write five fields"),
    ],
)
def test_a_cron_expression_that_cannot_be_is_refused(expression: str, message: str) -> None:
    with pytest.raises(JobRefused, match=message):
        cron(expression)


def test_the_options_of_the_command_line_name_one_trigger() -> None:
    assert choose_trigger(None, "200-judged-turns", None) == JudgedTurns(every=200)
    assert choose_trigger(None, None, JobKind.ROLLOUT) == AfterJob(job=JobKind.ROLLOUT)
    assert choose_trigger(None, None, None) is None
    with pytest.raises(JobRefused, match="one trigger"):
        choose_trigger("* * * * *", None, JobKind.TRAIN)
    for text in ("200", "0-judged-turns", "many-judged-turns"):
        with pytest.raises(JobRefused, match="such as 200-judged-turns"):
            choose_trigger(None, text, None)
    with pytest.raises(JobRefused, match="no time zone 'Mars/Olympus'"):
        zone_of("Mars/Olympus")


def test_the_nightly_loop_is_one_line() -> None:
    line = "rollout scenarios=96 domain=travel judge train gate min_effect=0.01 promote=false prune keep=3"
    jobs = read_jobs(line.split(), priority=2, max_attempts=1)
    assert [job.kind for job in jobs] == ["rollout", "judge", "train", "gate", "prune"]
    assert jobs[0].payload == {"scenarios": 96, "domain": "travel"}
    assert jobs[3].payload == {"min_effect": 0.01, "promote": False}
    assert {(job.priority, job.max_attempts) for job in jobs} == {(2, 1)}
    assert describe_jobs(jobs) == line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rolout", "no kind of job 'rolout': there are rollout"),
        ("scenarios=4 rollout", "comes before any job"),
        ("prune kep=3", r"prune: kep: .*options of prune: keep"),
        ("rollout scenarios=none", "rollout: scenarios"),
        ("rollout group_size=1", "rollout: group_size"),
        ("rollout split=dev", "rollout: split"),
        ("rollout gate", "nothing makes a candidate"),
        ("", "at least one job"),
    ],
)
def test_a_pipeline_that_cannot_be_is_refused_when_it_is_queued(words: str, message: str) -> None:
    with pytest.raises(JobRefused, match=message):
        read_jobs(words.split())


def test_what_passes_is_tried_again_ever_later_and_what_does_not_is_not() -> None:
    def seconds(reason: ExitReason, attempts: int, most: int = 9) -> float | None:
        delay = retry_delay(reason, attempts, most)
        return None if delay is None else delay.total_seconds()

    assert [seconds(ExitReason.SERVER, n) for n in (1, 2, 3, 8)] == [30, 120, 480, 3600]
    assert seconds(ExitReason.SERVER, 3, 3) is None, "it has had its attempts"
    assert seconds(ExitReason.MEMORY, 1) == 300
    assert [seconds(reason, 1) for reason in (ExitReason.REFUSED, ExitReason.MISTAKE)] == [None, None]
