"""The overview's part on what ran in the last 24 hours: jobs, training runs, stages of loops.

Reads store.night; what is not of the newest is counted, with the way to it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import streamlit as st

from dashboard.format import figures, moment, plural, seconds
from dashboard.job_tables import job_rows
from dashboard.links import JOBS, TRAINING, PageSpec, address
from dashboard.text import escape, link, show, soft, state_badge, status_badge, table
from reward.rate_alerts import LOOK_BACK
from store.database import Log
from store.job_log import newest_lines
from store.night import RanRun, jobs_since, runs_since, stages_since
from store.schedules import list_schedules
from store.stages import StageRecord
from store.vocabulary import JobStatus, RunKind

LONGEST_RESULT = 110
"""Characters of what a run or stage came to."""


def show_night(log: Log) -> None:
    note = "Jobs, training runs and stages of loops of the last 24 hours; what a job started stands with the job."
    st.subheader("What ran last night", anchor=False, help=note)
    now = datetime.now(UTC)
    since = now - LOOK_BACK
    jobs, runs, stages = jobs_since(log, since), runs_since(log, since), stages_since(log, since)
    if not (jobs.rows or runs.rows or stages.rows):
        hint = "A schedule makes the loop run by itself: page Jobs and schedules."
        show(soft(f"No job, training run or loop ran in the last 24 hours. {hint}"))
        return
    if jobs.rows:
        names = {schedule.id: schedule.name for schedule in list_schedules(log)}
        show(job_rows(jobs.rows, newest_lines(log, [job.id for job in jobs.rows]), names, now))
        show_rest(jobs.more, "job", JOBS)
    if runs.rows:
        show(run_rows(runs.rows, now))
        show_rest(runs.more, "run", TRAINING)
    if stages.rows:
        show(stage_rows(stages.rows, now))
        show_rest(stages.more, "stage", TRAINING)
    with st.container(horizontal=True):
        st.page_link(JOBS.target, label="All jobs", icon=":material/arrow_forward:")
        st.page_link(TRAINING.target, label="All runs and loops", icon=":material/arrow_forward:")


def show_rest(more: int, noun: str, page: PageSpec) -> None:
    if more:
        show(soft(f"and {plural(more, f'earlier {noun}')} of these 24 hours: "), link(page.title, address(page)))


def run_rows(runs: Sequence[RanRun], at: datetime) -> str:
    """A row a training run, with the way to its curves."""
    rows = [
        (
            status_badge(one.run.status),
            link(one.run.name, address(TRAINING, runs=one.run.name)),
            f"<b>{escape(one.run.kind)}</b>",
            escape(one.run.base_version or "–"),
            _came_of(one),
            escape(moment(one.run.created_at)),
            seconds(((one.run.ended_at or at) - one.run.created_at).total_seconds()),
        )
        for one in runs
    ]
    return table(("status", "run", "kind", "from", "came of it", "since (UTC)", "took"), rows, numeric=(6,))


def _came_of(one: RanRun) -> str:
    if one.version is not None:
        return f"<b>{escape(one.version)}</b> {state_badge(one.state) if one.state else ''}"
    if one.run.error:
        return escape(_short(one.run.error))
    if one.run.status is not JobStatus.DONE:
        return soft("nothing yet")
    return f"judge <b>{escape(one.run.name)}</b>" if one.run.kind is RunKind.DISTIL else soft("no version")


def stage_rows(stages: Sequence[StageRecord], at: datetime) -> str:
    """A row a stage of a loop."""
    rows = [
        (
            status_badge(stage.status),
            escape(stage.loop),
            f"<b>{escape(stage.key)}</b>",
            escape(_short(stage.error or figures(stage.result or {}))),
            escape(moment(stage.started_at)),
            seconds(_took(stage, at)),
        )
        for stage in stages
    ]
    return table(("status", "loop", "stage", "came of it", "since (UTC)", "took"), rows, numeric=(5,))


def _took(stage: StageRecord, at: datetime) -> float | None:
    """Of all tries together."""
    if stage.status is JobStatus.RUNNING:
        return (stage.seconds or 0.0) + (at - stage.started_at).total_seconds()
    return stage.seconds


def _short(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= LONGEST_RESULT else first[: LONGEST_RESULT - 1] + "…"
