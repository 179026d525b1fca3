"""Jobs and schedules: what waits, runs and ran, with its log as it is written; schedules made, changed, fired, paused.

Reads jobs, their logs, schedules, firings and workers in small queries, again every few seconds. What a person does is
in dashboard/job_actions.py and dashboard/schedule_form.py. The address says which job, schedule or form is open.
"""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from dashboard import job_actions
from dashboard.boundary import guard, may, run_page
from dashboard.format import plural
from dashboard.job_actions import go, say_outcome
from dashboard.job_tables import (
    dates,
    firing_rows,
    job_facts,
    job_rows,
    log_lines,
    schedule_badge,
    schedule_rows,
    when,
    worker_line,
)
from dashboard.links import JOBS, address
from dashboard.paging import captioned_offset
from dashboard.schedule_form import MISSED, OVERLAP, show_job_form, show_schedule_form
from dashboard.text import advice, escape, escape_markdown, link, show, show_empty, soft, status_badge
from store.database import Log, LogError
from store.job_log import newest_lines, read_lines
from store.jobs import UNFINISHED, JobRecord, count_jobs, get_job, list_jobs
from store.schedules import ScheduleRecord, get_schedule, list_firings, list_schedules
from store.schema import now
from store.settings import Settings
from store.vocabulary import AccessRole, JobKind, JobStatus
from store.workers import list_workers
from train.job_payloads import describe_jobs
from train.triggers import next_times, read_trigger

ALL = "all"
PAGE_SIZE = 25
POLL = "3s"
POLL_LOG = "1s"
SHOWN_LINES = 300


def show_jobs(log: Log, settings: Settings) -> None:
    say_outcome()
    asked = st.query_params
    if asked.get("form") and not may(AccessRole.OPERATOR):
        _back("Jobs")
        show_empty("This needs the role operator", "Jobs and schedules are made and changed by operators.")
    elif asked.get("form") == "jobs":
        _back("Queue jobs")
        show_job_form()
    elif asked.get("form") == "schedule":
        _back("New schedule")
        show_schedule_form(None, now())
    elif job := asked.get("job"):
        show_job(log, int(job) if job.isascii() and job.isdigit() and len(job) < 10 else 0)
    elif name := asked.get("schedule"):
        show_schedule(log, name, editing=asked.get("form") == "edit")
    else:
        show_all(log)


def show_all(log: Log) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("Schedules", anchor=False, width="content")
        if may(AccessRole.OPERATOR):
            with st.container(horizontal=True, width="content"):
                st.button("New schedule", icon=":material/add:", on_click=go, kwargs={"form": "schedule"}, key="new")
                st.button("Queue jobs", icon=":material/play_arrow:", on_click=go, kwargs={"form": "jobs"}, key="queue")
    schedules = list_schedules(log)
    if schedules:
        show(schedule_rows(schedules, now()))
    else:
        hint = "A schedule queues jobs by itself: every night, after so many judged turns, after each training run."
        show_empty("Nothing is scheduled yet", hint, 'checkloop schedule add nightly --cron "0 3 * * *" rollout judge')
    st.subheader("Jobs", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        _pick("Status", "j_status", [status.value for status in JobStatus], 140)
        _pick("Kind", "j_kind", [kind.value for kind in JobKind], 140)
        _pick("Schedule", "j_schedule", [schedule.name for schedule in schedules], 180)
    follow_list(log)


def _pick(label: str, key: str, values: Sequence[str], width: int) -> None:
    st.selectbox(label, [ALL, *values], key=key, bind="query-params", width=width)


@st.fragment(run_every=POLL)
def follow_list(log: Log) -> None:
    guard(JOBS.title, lambda: show_list(log))


def show_list(log: Log) -> None:
    state = st.session_state
    status, kind, of = (state.get(key, ALL) for key in ("j_status", "j_kind", "j_schedule"))
    wanted: dict[str, Any] = {
        "status": None if status == ALL else JobStatus(status),
        "kind": None if kind == ALL else JobKind(kind),
        "schedule": None if of == ALL else str(of),
    }
    show_workers(log)
    total = count_jobs(log, **wanted)
    if not total:
        if any(wanted.values()):
            show_empty("No job matches", "Widen the filters above.")
        else:
            hint = "Queue some above, now or by a schedule (`checkloop schedule add` makes one, too), or by a command:"
            show_empty("No job has been queued yet", hint, "checkloop job submit rollout judge")
        return
    offset = captioned_offset(f"{plural(total, 'job')}, newest first", total, PAGE_SIZE, "j_page")
    show_rows(log, list_jobs(log, **wanted, limit=PAGE_SIZE, offset=offset))


def show_rows(log: Log, jobs: Sequence[JobRecord]) -> None:
    names = {schedule.id: schedule.name for schedule in list_schedules(log)}
    running = [job.id for job in jobs if job.status is JobStatus.RUNNING]
    show(job_rows(jobs, newest_lines(log, running), names, now()))


def show_workers(log: Log) -> None:
    line = worker_line(list_workers(log), now())
    show(line or advice("No worker is running: jobs wait until one starts. `checkloop worker` is one."))


def show_job(log: Log, job_id: int) -> None:
    try:
        job = get_job(log, job_id)
    except LogError as error:
        _back("Jobs")
        show_empty("There is no such job", str(error))
        return
    _back(f"Job {job.id}: {job.kind}")
    if job.status in UNFINISHED:
        follow_job(log, job_id)
    else:
        show_job_now(log, job_id)


@st.fragment(run_every=POLL_LOG)
def follow_job(log: Log, job_id: int) -> None:
    def show_and_ask() -> None:
        show_job_now(log, job_id)
        if get_job(log, job_id).status not in UNFINISHED:
            st.rerun()  # as a page that asks no more

    guard(JOBS.title, show_and_ask)


def show_job_now(log: Log, job_id: int) -> None:
    """The job as it stands: asked again every second while it is unfinished."""
    job = get_job(log, job_id)
    with st.container(horizontal=True, vertical_alignment="center"):
        show(f'<div class="cl-row">{status_badge(job.status)}<b>{escape(job.kind)}</b>{soft(job.name)}</div>')
        if may(AccessRole.OPERATOR):
            show_job_buttons(job)
    left, right = st.columns([2, 3], gap="large")
    with left:
        show(job_facts(job, now()))
        pipeline = list_jobs(log, pipeline=job.pipeline, limit=None)[::-1]
        if len(pipeline) > 1:
            show('<div class="cl-label">Its pipeline</div>')
            show_pipeline(pipeline)
    with right:
        show_log(log, job)


def show_job_buttons(job: JobRecord) -> None:
    if job.status in UNFINISHED:
        asked = job.cancel_requested and job.status is JobStatus.RUNNING
        st.button(
            "Asked to stop" if asked else "Cancel",
            icon=":material/stop:",
            key="cancel",
            disabled=asked,
            on_click=job_actions.cancel,
            args=(job.id,),
            help="Out of the queue, with what follows it; a running one stops after the piece it is at.",
        )
    elif job.status is not JobStatus.DONE:
        st.button(
            "Try again",
            icon=":material/replay:",
            key="retry",
            on_click=job_actions.retry,
            args=(job.id,),
            help="Queues it anew, with what was cancelled because of it.",
        )


def show_pipeline(jobs: Sequence[JobRecord]) -> None:
    rows = [f"{status_badge(job.status)} {link(f'{job.id} {job.kind}', address(JOBS, job=job.id))}" for job in jobs]
    show(f'<div class="cl-row">{" → ".join(rows)}</div>')


def show_log(log: Log, job: JobRecord) -> None:
    newest = newest_lines(log, [job.id]).get(job.id)
    show('<div class="cl-label">Log</div>')
    if newest is None:
        unfinished = job.status in UNFINISHED
        show(soft("Nothing yet: lines appear here as the job writes them." if unfinished else "It wrote nothing."))
        return
    total = newest.number
    offset = captioned_offset(f"{plural(total, 'line')}, the newest on page 1", total, SHOWN_LINES, "log_page")
    last = total - offset
    lines = read_lines(log, job.id, after=max(0, last - SHOWN_LINES), limit=min(last, SHOWN_LINES))
    with st.container(height=440, autoscroll=not offset, border=True, key="job-log"):
        show(log_lines(lines))


def show_schedule(log: Log, name: str, *, editing: bool) -> None:
    try:
        schedule = get_schedule(log, name)
    except LogError as error:
        _back("Schedules")
        show_empty("There is no such schedule", str(error))
        return
    _back(f"Schedule {schedule.name}")
    if editing:
        show_schedule_form(schedule, now())
        return
    with st.container(horizontal=True, vertical_alignment="center", key="schedule-actions"):
        show(f'<div class="cl-row">{schedule_badge(schedule)}{escape(when(schedule))}</div>')
        if may(AccessRole.OPERATOR):
            show_buttons(schedule)
    left, right = st.columns([3, 2], gap="large")
    with left:
        show(f"<p><code>{escape(describe_jobs(schedule.jobs))}</code></p>")
        missed, overlap = MISSED[schedule.missed], OVERLAP[schedule.overlap]
        show(soft(f"A time that passed while no worker ran is {missed}."))
        show(soft(f"Due while its last pipeline is unfinished, it {overlap}."))
    with right:
        show_next(schedule)
    follow_schedule(log, schedule)


def show_buttons(schedule: ScheduleRecord) -> None:
    name = schedule.name
    _button("Run now", "play_arrow", job_actions.run_now, name, "Queues its pipeline now, whatever its policies say.")
    if schedule.paused:
        _button("Resume", "resume", job_actions.resume, name, "What happened during the pause does not count.")
    else:
        _button("Pause", "pause", job_actions.pause, name, "It does not fire until it is resumed.")
    st.button("Edit", icon=":material/edit:", key="edit", on_click=go, kwargs={"schedule": name, "form": "edit"})
    if st.button("Remove", icon=":material/delete:", key="remove"):
        confirm_removal(name)


def _button(label: str, icon: str, on_click: Callable[[str], None], name: str, hint: str) -> None:
    st.button(label, icon=f":material/{icon}:", key=label, on_click=on_click, args=(name,), help=hint)


def show_next(schedule: ScheduleRecord) -> None:
    if schedule.paused:
        show(soft("Paused: it does not fire until it is resumed."))
    elif times := next_times(read_trigger(schedule.trigger), schedule.zone, now()):
        show(dates(times, schedule.zone))
    else:
        show(soft("Nobody knows when it is due next: that depends on what is judged or done."))


@st.fragment(run_every=POLL)
def follow_schedule(log: Log, schedule: ScheduleRecord) -> None:
    guard(JOBS.title, lambda: show_history(log, schedule))


def show_history(log: Log, schedule: ScheduleRecord) -> None:
    firings = list_firings(log, schedule.name)
    jobs = list_jobs(log, schedule=schedule.name)
    first = {job.pipeline: job.id for job in jobs if job.position == 0}
    st.subheader("What came of it", anchor=False)
    if not firings:
        show(soft("It has not been due yet."))
        return
    show(firing_rows(firings, first))
    if jobs:
        st.subheader("Its jobs", anchor=False)
        show_workers(log)
        show_rows(log, jobs[:PAGE_SIZE])


@st.dialog("Remove this schedule?")
def confirm_removal(name: str) -> None:
    show(f"<b>{escape(name)}</b> {soft('does not fire any more. Its jobs stay, those that are queued, too.')}")
    with st.container(horizontal=True):
        done = st.button("Remove it", type="primary", key="remove-yes", on_click=job_actions.remove, args=(name,))
        if st.button("Keep it", key="remove-no") or done:
            st.rerun()


def _back(title: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("All jobs and schedules", icon=":material/arrow_back:", on_click=go, key="back", shortcut="Escape")
        st.subheader(escape_markdown(title), anchor=False, width="content")


run_page(JOBS.title, show_jobs)
