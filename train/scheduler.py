"""Fires the schedules that are due; every worker does so, and each due time is fired once (store/schedules.py)."""

from collections.abc import Callable
from datetime import datetime, timedelta

from store.database import Log
from store.schedules import (
    JOB_DUE,
    Firing,
    ScheduleRecord,
    done_since,
    fire_schedule,
    is_busy,
    judged_turns_since,
    list_schedules,
)
from store.vocabulary import MissedRuns, Overlap
from train.errors import JobRefused
from train.triggers import AfterJob, CronTimes, JudgedTurns, next_times, read_trigger, zone_of


def fire_due(log: Log, at: datetime, missed_after_s: float, say: Callable[[str], None]) -> list[Firing]:
    """Fires what is due at `at`; `say` is told of each firing, and of a schedule that cannot be read."""
    fired = []
    for schedule in list_schedules(log):
        if schedule.paused:
            continue
        try:
            of_it = _fire(log, schedule, at, missed_after_s)
        except JobRefused as error:
            say(f"schedule {schedule.name}: {error}")
            continue
        for firing in of_it:
            say(f"schedule {schedule.name}: {firing.outcome} {firing.pipeline or firing.reason}")
        fired += of_it
    return fired


def _fire(log: Log, schedule: ScheduleRecord, at: datetime, missed_after_s: float) -> list[Firing]:
    trigger = read_trigger(schedule.trigger)
    firings: list[Firing | None] = []
    if isinstance(trigger, CronTimes):
        if schedule.next_due is None or schedule.next_due > at:
            return []
        due = max(trigger.newest(at, zone_of(schedule.zone)), schedule.next_due)
        late = at - due > timedelta(seconds=missed_after_s)
        firing = fire_schedule(
            log,
            schedule,
            f"{due:%Y-%m-%dT%H:%M:%SZ}",
            at=at,
            next_due=next_times(trigger, schedule.zone, at, 1)[0],
            missed=f"no worker ran until {at:%Y-%m-%d %H:%M} UTC"
            if late and schedule.missed is MissedRuns.SKIP
            else "",
        )
        firings.append(firing)
    elif isinstance(trigger, JudgedTurns):
        # Turns that are judged while its pipeline runs count on; the firing waits for the pipeline.
        waits = schedule.overlap is Overlap.SKIP and is_busy(log, schedule)
        if not waits and judged_turns_since(log, schedule, trigger.every) >= trigger.every:
            firings.append(fire_schedule(log, schedule, f"after verdict {schedule.mark}", at=at))
    elif isinstance(trigger, AfterJob):
        for job_id in done_since(log, schedule, trigger.job):
            firings.append(fire_schedule(log, schedule, f"{JOB_DUE}{job_id}", at=at))
    return [firing for firing in firings if firing is not None]
