"""A button on any page that queues a job, in place of a command to type: for operators, by the jobs' own functions."""

from typing import Any

import streamlit as st

from dashboard.boundary import may
from dashboard.job_actions import queue_job, say_outcome
from dashboard.links import JOBS, address
from dashboard.text import escape_markdown, link, show, soft, status_badge
from store.database import Log
from store.jobs import UNFINISHED, JobRecord, NewJob, list_jobs
from store.vocabulary import AccessRole, JobKind, JobStatus
from train.job_payloads import describe_jobs


def offer_job(log: Log, label: str, kind: JobKind, payload: dict[str, Any], key: str, hint: str = "") -> None:
    """The button, or a link to the job where one that was told the same waits or runs. Nobody but operators sees
    anything."""
    if not may(AccessRole.OPERATOR):
        return
    say_outcome()
    if (job := unfinished_like(log, kind, payload)) is not None:
        where = link(f"job {job.id}: {job.kind}", address(JOBS, job=job.id))
        show(f'<div class="cl-row">{status_badge(job.status)}{where}{soft(job.name)}</div>')
        return
    st.button(
        label,
        icon=":material/play_arrow:",
        key=key,
        on_click=queue_job,
        args=(kind, payload),
        help=escape_markdown(f"{hint} As checkloop job submit {describe_jobs([NewJob(kind, payload)])}".strip()),
    )


def unfinished_like(log: Log, kind: JobKind, payload: dict[str, Any]) -> JobRecord | None:
    """The newest job of that kind and payload that waits or runs."""
    for status in UNFINISHED:
        for job in list_jobs(log, status=JobStatus(status), kind=kind, limit=50):
            if job.payload == payload:
                return job
    return None
