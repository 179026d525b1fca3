"""Schedules made, changed and fired. Every worker fires what is due, each due time once (store/schedules.py)."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from store.database import Log, LogError
from store.jobs import NewJob
from store.schedules import (
    JOB_DUE,
    Firing,
    ScheduleRecord,
    add_schedule,
    change_schedule,
    done_since,
    fire_schedule,
    get_schedule,
    has_room,
    judged_turns_since,
    list_schedules,
)
from store.vocabulary import MissedRuns, Overlap
from train.errors import JobRefused
from train.job_payloads import check_pipeline
from train.triggers import AfterJob, CronTimes, JudgedTurns, Trigger, next_times, read_trigger, zone_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def create_schedule(
    log: Log,
    name: str,
    trigger: Trigger,
    jobs: Sequence[NewJob],
    *,
    at: datetime,
    zone: str = "UTC",
    missed: MissedRuns = MissedRuns.ONCE,
    overlap: Overlap = Overlap.SKIP,
) -> ScheduleRecord:
    """Raises JobRefused for a bad name, zone or job, LogError if the name is taken."""
    if not _NAME.fullmatch(name):
        raise JobRefused(f"{name!r} is no name for a schedule: up to 64 letters, digits, dots, dashes and underscores")
    return add_schedule(
        log,
        name,
        trigger=trigger.model_dump(mode="json"),
        jobs=check_pipeline(jobs),
        zone=zone_of(zone).key,
        missed=missed,
        overlap=overlap,
        next_due=_first_due(trigger, zone, at),
    )


def edit_schedule(
    log: Log,
    name: str,
    *,
    at: datetime,
    trigger: Trigger | None = None,
    jobs: Sequence[NewJob] = (),
    zone: str | None = None,
    missed: MissedRuns | None = None,
    overlap: Overlap | None = None,
) -> ScheduleRecord:
    """Changes what is given. With another trigger or zone it counts from now on. Raises as `create_schedule`."""
    before = get_schedule(log, name)
    changes: dict[str, Any] = {
        key: value for key, value in {"missed": missed, "overlap": overlap}.items() if value is not None
    }
    if jobs:
        changes["jobs"] = check_pipeline(jobs)
    if trigger is None and zone is None:
        return change_schedule(log, name, **changes)
    trigger, zone = trigger or read_trigger(before.trigger), zone_of(zone or before.zone).key
    changes |= {"trigger": trigger.model_dump(mode="json"), "zone": zone, "next_due": _first_due(trigger, zone, at)}
    return change_schedule(log, name, rearm=True, **changes)


def pause_schedule(log: Log, name: str) -> ScheduleRecord:
    """Raises LogError if there is none."""
    get_schedule(log, name)
    return change_schedule(log, name, paused=True)


def resume_schedule(log: Log, name: str, at: datetime) -> ScheduleRecord:
    """What happened during the pause does not fire it."""
    schedule = get_schedule(log, name)
    next_due = _first_due(read_trigger(schedule.trigger), schedule.zone, at)
    return change_schedule(log, name, rearm=True, paused=False, next_due=next_due)


def run_schedule(log: Log, name: str, at: datetime) -> Firing:
    """Queues its pipeline now, whatever its policies say; it waits for one that is unfinished."""
    firing = fire_schedule(log, get_schedule(log, name), f"by hand {at:%Y-%m-%dT%H:%M:%S.%fZ}", at=at, by_hand=True)
    if firing is None:
        raise LogError(f"schedule {name!r} was removed or fired in the same moment: nothing was queued")
    return firing


def _first_due(trigger: Trigger, zone: str, at: datetime) -> datetime | None:
    return next(iter(next_times(trigger, zone, at, 1)), None)


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
        # Turns that are judged while there is no room for a pipeline count on; the firing waits for it.
        if has_room(log, schedule) and judged_turns_since(log, schedule, trigger.every) >= trigger.every:
            firings.append(fire_schedule(log, schedule, f"judged since verdict {schedule.mark}", at=at, waits=True))
    elif isinstance(trigger, AfterJob):
        for job_id in done_since(log, schedule, trigger.job):
            firings.append(fire_schedule(log, schedule, f"{JOB_DUE}{job_id}", at=at))
    return [firing for firing in firings if firing is not None]
