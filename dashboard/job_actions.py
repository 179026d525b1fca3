"""What a person does on the page of jobs and schedules, as callbacks of its widgets.

Each does one thing, by the function that the command calls. What came of it, or what was wrong, is left in the session
for the page to say.
"""

from typing import Any

import streamlit as st

from agent.vllm_client import ServerError
from dashboard import boundary
from dashboard.beside import AlreadyRunning
from dashboard.text import escape_markdown
from store.database import Log
from store.jobs import NewJob, cancel_job, retry_job, submit_pipeline
from store.schedules import remove_schedule
from store.schema import now
from store.settings import Settings
from store.vocabulary import AccessRole, FiringOutcome, JobKind
from store.workers import WorkerState, list_workers
from train.errors import TrainingFailed
from train.job_payloads import check_pipeline, read_job_line
from train.scheduler import pause_schedule, resume_schedule, run_schedule

PROBLEM = "action-problem"
"""Key of what was wrong with the last action."""
DONE = "action-done"
"""Key of what came of it."""

action = boundary.action(AccessRole.OPERATOR, PROBLEM, TrainingFailed, ServerError, AlreadyRunning, done_key=DONE)
"""Makes a callback of a function that changes something; operators only."""


def say_outcome() -> None:
    """What came of the last action, once: a note in passing for what went well, a message that stays for the rest."""
    if done := st.session_state.pop(DONE, None):
        st.toast(escape_markdown(done), icon=":material/check:")
    if problem := st.session_state.pop(PROBLEM, None):
        st.error(escape_markdown(problem), icon=":material/error:")


def go(**parameters: str | int) -> None:
    """Opens a view of the page: its address is made of these parameters alone."""
    st.query_params.from_dict({name: str(value) for name, value in parameters.items()})


@action
def cancel(log: Log, settings: Settings, job_id: int) -> str:
    found = cancel_job(log, job_id)
    return f"Job {job_id} is {found.status}" if found.ended_at else f"Job {job_id} is asked to stop"


@action
def retry(log: Log, settings: Settings, job_id: int) -> str:
    retry_job(log, job_id)
    return f"Job {job_id} is queued again"


@action
def submit_typed(log: Log, settings: Settings, line: str, priority: str, attempts: str) -> str:
    """Queues the jobs that stand in these widgets as one pipeline, and opens its first one."""
    state = st.session_state
    jobs = read_job_line(str(state[line]), priority=int(state[priority]), max_attempts=int(state[attempts]))
    ids = submit_pipeline(log, jobs)
    go(job=ids[0])
    return f"Queued: {', '.join(f'job {job_id}' for job_id in ids)}"


@action
def queue_job(log: Log, settings: Settings, kind: JobKind, payload: dict[str, Any]) -> str:
    """Queues one job, from a button of any page."""
    (first,) = submit_pipeline(log, check_pipeline([NewJob(kind, payload)]))
    at = now()
    there = any(worker.state(at) is WorkerState.THERE for worker in list_workers(log))
    return f"Job {first} is queued" + ("" if there else "; no worker is running, so it waits until one starts")


@action
def run_now(log: Log, settings: Settings, name: str) -> str:
    firing = run_schedule(log, name, now())
    return f"{name}: queued" if firing.outcome is FiringOutcome.QUEUED else f"{name}: {firing.outcome}, {firing.reason}"


@action
def pause(log: Log, settings: Settings, name: str) -> str:
    pause_schedule(log, name)
    return f"{name} is paused; what is queued already runs"


@action
def resume(log: Log, settings: Settings, name: str) -> str:
    resume_schedule(log, name, now())
    return f"{name} fires again"


@action
def remove(log: Log, settings: Settings, name: str) -> str:
    left = remove_schedule(log, name)
    go()
    return f"{name} is removed" + (f"; {left} of its jobs are unfinished and stay" if left else "")
