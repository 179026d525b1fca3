"""The form in which a schedule is made or changed, and the one in which jobs are queued at once.

What is typed is read by the functions that `checkloop schedule` and `checkloop job` call; what they refuse is said
beside the field, and the next five dates are shown while one types. What is typed stands in the address, so that a link
or a reload shows the form as it is.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Literal, TypeVar
from zoneinfo import available_timezones

import streamlit as st

from dashboard.choice import choose
from dashboard.job_actions import action, go, submit_typed
from dashboard.job_tables import dates
from dashboard.text import escape, show, soft
from store.database import Log
from store.jobs import MAX_ATTEMPTS, NewJob
from store.schedules import ScheduleRecord, get_schedule
from store.schema import now
from store.settings import Settings
from store.vocabulary import JobKind, MissedRuns, Overlap
from train.errors import JobRefused
from train.job_payloads import PAYLOADS, describe_jobs, read_job_line
from train.scheduler import create_schedule, edit_schedule
from train.triggers import AfterJob, CronTimes, JudgedTurns, Trigger, choose_trigger, next_times, read_trigger

TIMES, TURNS, JOB = "at times", "every so many judged turns", "after each job of a kind"
WHEN: dict[type, str] = {CronTimes: TIMES, JudgedTurns: TURNS, AfterJob: JOB}
NIGHTLY = "rollout judge train gate prune"
LIVE = "400ms"
BOUND: Literal["query-params"] = "query-params"
Policy = TypeVar("Policy", bound=StrEnum)

MISSED: dict[MissedRuns, str] = {
    MissedRuns.ONCE: "made up for by one run",
    MissedRuns.SKIP: "left out",
}
OVERLAP: dict[Overlap, str] = {
    Overlap.SKIP: "is left out",
    Overlap.QUEUE: "waits until the last one has ended",
}


def show_schedule_form(before: ScheduleRecord | None, at: datetime) -> None:
    """Fields, the next five dates and a button; `before` is the schedule to change, None makes a new one."""
    key = f"edit-{before.name}" if before else "new"
    trigger = _stored_trigger(before)
    with st.container(border=True, key="schedule-form"):
        left, right = st.columns([3, 2], gap="large")
        with left:
            if before is None:
                st.text_input("Name", key=f"{key}-name", bind=BOUND, placeholder="nightly", max_chars=64)
            st.segmented_control(
                "When",
                [*WHEN.values()],
                default=WHEN[type(trigger)],
                required=True,
                key=f"{key}-when",
                bind=BOUND,
            )
            _trigger_fields(key, trigger, before)
            problem = _said(lambda: typed_trigger(key))
            _jobs_field(key, describe_jobs(before.jobs) if before else NIGHTLY)
        with right:
            _show_dates(key, at, problem)
        with st.expander("What if …"), st.container(horizontal=True):
            missed, overlap = (before.missed, before.overlap) if before else (MissedRuns.ONCE, Overlap.SKIP)
            _choice("A time that passed while no worker ran is", MISSED, f"{key}-missed", missed)
            _choice("Due while its last pipeline is unfinished, it", OVERLAP, f"{key}-overlap", overlap)
            _job_numbers(key, before.jobs if before else ())
        jobs_problem = _said(lambda: typed_jobs(key))
        with st.container(horizontal=True):
            st.button(
                "Save" if before else "Create schedule",
                type="primary",
                key=f"{key}-save",
                disabled=bool(problem or jobs_problem),
                on_click=change_typed if before else create_typed,
                args=(before.name if before else key,),
            )
            back = {"schedule": before.name} if before else {}
            st.button("Cancel", key=f"{key}-cancel", on_click=go, kwargs=back)


def show_job_form() -> None:
    """Jobs to queue at once, as one pipeline."""
    with st.container(border=True, key="job-form"):
        _jobs_field("queue", "rollout judge")
        with st.expander("What if …"), st.container(horizontal=True):
            _job_numbers("queue", ())
        with st.container(horizontal=True):
            st.button(
                "Queue now",
                type="primary",
                key="queue-save",
                disabled=bool(_said(lambda: typed_jobs("queue"))),
                on_click=submit_typed,
                args=("queue-jobs", "queue-priority", "queue-attempts"),
            )
            st.button("Cancel", key="queue-cancel", on_click=go)


@action
def create_typed(log: Log, settings: Settings, key: str) -> str:
    state = st.session_state
    name = str(state.get(f"{key}-name") or "").strip()
    create_schedule(
        log,
        name,
        typed_trigger(key),
        typed_jobs(key),
        at=now(),
        zone=_zone(key),
        missed=state[f"{key}-missed"],
        overlap=state[f"{key}-overlap"],
    )
    go(schedule=name)
    return f"{name} is made"


@action
def change_typed(log: Log, settings: Settings, name: str) -> str:
    """Trigger and zone are given only where they differ: with another one it counts from now on."""
    key, state, before = f"edit-{name}", st.session_state, get_schedule(log, name)
    trigger, zone = typed_trigger(key), _zone(key)
    edit_schedule(
        log,
        name,
        at=now(),
        trigger=trigger if trigger.model_dump(mode="json") != before.trigger else None,
        zone=zone if zone != before.zone and isinstance(trigger, CronTimes) else None,
        jobs=typed_jobs(key),
        missed=state[f"{key}-missed"],
        overlap=state[f"{key}-overlap"],
    )
    go(schedule=name)
    return f"{name} is changed"


def typed_trigger(key: str) -> Trigger:
    """What stands in the form's fields. Raises JobRefused."""
    state, when = st.session_state, st.session_state.get(f"{key}-when", TIMES)
    found = choose_trigger(
        str(state.get(f"{key}-cron") or "") if when == TIMES else None,
        f"{state.get(f'{key}-every') or 0}-judged-turns" if when == TURNS else None,
        JobKind(state[f"{key}-after"]) if when == JOB else None,
    )
    assert found is not None
    return found


def typed_jobs(key: str) -> list[NewJob]:
    """Raises JobRefused."""
    state = st.session_state
    return read_job_line(
        str(state.get(f"{key}-jobs") or ""),
        priority=int(state.get(f"{key}-priority", 0)),
        max_attempts=int(state.get(f"{key}-attempts", MAX_ATTEMPTS)),
    )


def _zone(key: str) -> str:
    return str(st.session_state.get(f"{key}-zone") or "UTC")


def _trigger_fields(key: str, trigger: Trigger, before: ScheduleRecord | None) -> None:
    when = st.session_state[f"{key}-when"]
    if when == TIMES:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            cron = trigger.expression if isinstance(trigger, CronTimes) else "0 3 * * *"
            st.text_input(
                "Cron expression",
                cron,
                key=f"{key}-cron",
                bind=BOUND,
                live=LIVE,
                width=200,
                help="Minute, hour, day of month, month, day of week: `0 3 * * *` is every night at three, "
                "`*/30 8-18 * * 1-5` every half hour of a working day.",
            )
            zones = _zones()
            wanted = before.zone if before else (st.context.timezone or "UTC")
            choose("Time zone", zones, wanted if wanted in zones else "UTC", key=f"{key}-zone", width=240)
    elif when == TURNS:
        every = trigger.every if isinstance(trigger, JudgedTurns) else 200
        st.number_input(
            "Judged turns",
            min_value=1,
            value=every,
            step=50,
            key=f"{key}-every",
            bind=BOUND,
            width=200,
            help="With a verdict other than UNSCORED since it last fired; evaluations and its own jobs do not count.",
        )
    else:
        kinds = [kind.value for kind in JobKind]
        chosen = trigger.job.value if isinstance(trigger, AfterJob) else JobKind.TRAIN.value
        st.selectbox("Kind of job", kinds, kinds.index(chosen), key=f"{key}-after", bind=BOUND, width=200)


def _show_dates(key: str, at: datetime, problem: str) -> None:
    if problem:
        _refuse(problem)
        return
    trigger = typed_trigger(key)
    times = next_times(trigger, _zone(key), at)
    if times:
        show(dates(times, _zone(key)))
    elif isinstance(trigger, JudgedTurns):
        show(soft("It fires as soon as so many turns are judged; nobody knows when that is."))
    else:
        show(soft("It fires once for every job of this kind that gets done, its own excluded."))


def _jobs_field(key: str, start: str) -> None:
    st.text_input(
        "Jobs, in order",
        start,
        key=f"{key}-jobs",
        bind=BOUND,
        live=LIVE,
        help="Kinds, each followed by its options: `rollout scenarios=48 group_size=8 judge train gate`. "
        + " ".join(f"**{kind}**: {', '.join(payload.model_fields)}." for kind, payload in PAYLOADS.items()),
    )
    if problem := _said(lambda: typed_jobs(key)):
        _refuse(problem)
    else:
        numbered = " → ".join(job.kind.value for job in typed_jobs(key))
        show(soft(f"{numbered}: each starts when the one before it is done"))


def _job_numbers(key: str, jobs: tuple[NewJob, ...]) -> None:
    priority, attempts = (jobs[0].priority, jobs[0].max_attempts) if jobs else (0, MAX_ATTEMPTS)
    st.number_input("Priority", value=priority, key=f"{key}-priority", bind=BOUND, width=130, help="Higher goes first.")
    st.number_input("Tries of each job", min_value=1, value=attempts, key=f"{key}-attempts", bind=BOUND, width=130)


def _choice(label: str, words: dict[Policy, str], key: str, chosen: Policy) -> None:
    options = list(words)
    st.selectbox(
        label,
        options,
        options.index(chosen),
        format_func=lambda option: words[option],
        key=key,
        bind=BOUND,
        width=300,
    )


def _refuse(problem: str) -> None:
    show(f'<div class="cl-refused" role="alert">{escape(problem)}</div>')


def _said(read: Callable[[], object]) -> str:
    """Why it is refused; empty if it is not."""
    try:
        read()
    except JobRefused as error:
        return str(error)
    return ""


def _stored_trigger(before: ScheduleRecord | None) -> Trigger:
    if before is None:
        return CronTimes(expression="0 3 * * *")
    return read_trigger(before.trigger)


@cache
def _zones() -> list[str]:
    return ["UTC", *sorted(available_timezones() - {"UTC", "localtime"})]
