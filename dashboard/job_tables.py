"""Jobs, schedules and workers as HTML. Pure: from records to escaped HTML."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dashboard.format import ago, moment, plural, seconds
from dashboard.links import JOBS, address
from dashboard.text import chip, escape, link, mono, soft, status_badge, table, tidy_json
from store.job_log import LogLine
from store.jobs import JobRecord
from store.schedules import Firing, ScheduleRecord
from store.vocabulary import JobStatus
from store.workers import WorkerRecord, WorkerState
from train.errors import JobRefused
from train.job_payloads import describe_jobs
from train.triggers import describe, read_trigger, zone_of

_SHARE = re.compile(r"\s*(\d{1,3}) %  (.*)")
"""How a job's process says how far it is (train/job_process.py)."""


def job_rows(
    jobs: Sequence[JobRecord],
    lines: Mapping[int, LogLine],
    schedules: Mapping[int, str],
    at: datetime,
) -> str:
    """A row a job. `lines`: the newest line of each; `schedules`: names by id."""
    rows = [
        (
            status_badge(job.status),
            link(f"job {job.id}", address(JOBS, job=job.id)),
            f"<b>{escape(job.kind)}</b>",
            _origin(job, schedules),
            _how_far(job, lines.get(job.id), at),
            f"{job.attempts} of {job.max_attempts}",
            escape(moment(job.started_at or job.created_at)),
            seconds(took(job, at)),
        )
        for job in jobs
    ]
    columns = ("status", "job", "kind", "from", "how far", "tries", "since (UTC)", "took")
    return table(columns, rows, numeric=(5, 7))


def took(job: JobRecord, at: datetime) -> float | None:
    """Seconds from its last start to its end, or until now; None if it has not started."""
    if job.started_at is None or job.status is JobStatus.QUEUED:
        return None
    return max(0.0, ((job.ended_at or at) - job.started_at).total_seconds())


def _origin(job: JobRecord, schedules: Mapping[int, str]) -> str:
    name = schedules.get(job.schedule_id) if job.schedule_id is not None else None
    return link(name, address(JOBS, schedule=name)) if name else soft(job.pipeline)


def _how_far(job: JobRecord, line: LogLine | None, at: datetime) -> str:
    if job.status is JobStatus.QUEUED:
        if job.run_after > at:
            return soft(f"not before {moment(job.run_after)} UTC" + (f": {job.error}" if job.error else ""))
        return soft("waits for the jobs before it" if job.position else "waits for a worker")
    if job.status is JobStatus.RUNNING:
        asked = chip("asked to stop") if job.cancel_requested else ""
        return asked + progress(line)
    why = job.error or (job.exit_reason if job.status is not JobStatus.DONE else None)
    if why:
        return escape(_short(why.splitlines()[0]))
    return soft(_short(_figures(job.result)) if job.result else "–")


def progress(line: LogLine | None) -> str:
    """The newest line of a running job: a bar where it says what share is done."""
    if line is None:
        return soft("starts")
    if found := _SHARE.fullmatch(line.text):
        share = min(int(found[1]), 100)
        bar = f'<span class="cl-bar" style="width:{0.06 * share:.2f}rem"></span>'
        return f"{bar} <b>{share} %</b> {soft(_short(found[2]))}"
    return soft(_short(line.text))


def job_facts(job: JobRecord, at: datetime) -> str:
    """What it was told, who runs it, how it ended."""
    facts = [
        (
            "options",
            mono(json.dumps(job.payload, ensure_ascii=False)) if job.payload else soft("those of the settings"),
        ),
        ("tries", escape(f"{job.attempts} of {job.max_attempts}, priority {job.priority}")),
        ("queued", escape(f"{moment(job.created_at)} UTC")),
    ]
    if job.started_at:
        facts.append(("started", escape(f"{moment(job.started_at)} UTC ({ago(job.started_at, at)})")))
    if job.ended_at:
        facts.append(("ended", escape(f"{moment(job.ended_at)} UTC ({ago(job.ended_at, at)})")))
    if (duration := took(job, at)) is not None:
        facts.append(("took" if job.ended_at else "so far", escape(seconds(duration))))
    if job.lease_owner:
        held = f", holds {job.holds}" if job.holds else ""
        facts.append(("worker", escape(f"{job.lease_owner} on {job.host}{held}")))
    if job.exit_reason and job.status is not JobStatus.DONE:
        facts.append(("why", escape(f"{job.exit_reason}: {job.error}" if job.error else str(job.exit_reason))))
    for name, document in (("chose", job.notes), ("result", job.result)):
        if document:
            facts.append((name, mono(tidy_json(json.dumps(document, ensure_ascii=False)))))
    return table(("", ""), [(soft(name), value) for name, value in facts], fill=True)


def log_lines(lines: Sequence[LogLine]) -> str:
    """A piece of a job's log, oldest line first."""
    # Line by line: `escape` cuts off what is too long for one text.
    text = "\n".join(escape(f"{line.created_at:%H:%M:%S}  {line.text}") for line in lines)
    return f'<div class="cl-log">{text}</div>'


def schedule_rows(schedules: Sequence[ScheduleRecord], at: datetime) -> str:
    rows = [
        (
            schedule_badge(schedule),
            link(schedule.name, address(JOBS, schedule=schedule.name)),
            escape(when(schedule)),
            f"<code>{escape(describe_jobs(schedule.jobs))}</code>",
            escape(ago(schedule.last_fired, at)) if schedule.last_fired else soft("never"),
            escape(next_due(schedule)),
        )
        for schedule in schedules
    ]
    return table(("", "schedule", "when", "jobs", "last fired", "next"), rows)


def schedule_badge(schedule: ScheduleRecord) -> str:
    return chip("paused") if schedule.paused else chip("active")


def when(schedule: ScheduleRecord) -> str:
    """Its trigger in words; what cannot be read is said as that."""
    try:
        return describe(read_trigger(schedule.trigger), schedule.zone)
    except JobRefused as error:
        return str(error)


def next_due(schedule: ScheduleRecord) -> str:
    """Its next time in its own zone; "–" where nobody knows it."""
    if schedule.paused or schedule.next_due is None:
        return "–"
    return local(schedule.next_due, schedule.zone)


def local(time: datetime, zone: str) -> str:
    """ "Mon 2026-11-23 03:00 CET"."""
    return f"{time.astimezone(zone_of(zone)):%a %Y-%m-%d %H:%M %Z}"


def dates(times: Sequence[datetime], zone: str) -> str:
    """Coming times in their zone, in UTC beside where that differs."""
    rows = []
    for time in times:
        utc = f"{time:%a %H:%M} UTC"
        rows.append((escape(local(time, zone)), soft("" if zone == "UTC" else utc)))
    return table(("next times", ""), rows)


def firing_rows(firings: Sequence[Firing], by_pipeline: Mapping[str, int]) -> str:
    """What came of the times at which a schedule was due. `by_pipeline`: the first job of each."""
    rows = [
        (
            escape(f"{firing.created_at:%Y-%m-%d %H:%M:%S}"),
            chip(firing.outcome),
            escape(firing.due),
            link(firing.pipeline, address(JOBS, job=by_pipeline[firing.pipeline]))
            if firing.pipeline in by_pipeline and firing.pipeline
            else escape(firing.pipeline or "–"),
            escape(firing.reason),
        )
        for firing in firings
    ]
    return table(("when (UTC)", "came of it", "was due", "pipeline", "why"), rows, fill=True)


def worker_line(workers: Sequence[WorkerRecord], at: datetime) -> str:
    """Who works; empty if nobody does."""
    there = [worker for worker in workers if worker.state(at) is WorkerState.THERE]
    silent = [worker for worker in workers if worker.state(at) is WorkerState.SILENT]
    chips = [chip(f"{worker.name} on {worker.host} · {', '.join(worker.accelerators) or 'cpu'}") for worker in there]
    if silent:
        last = silent[0]
        chips.append(soft(f"silent: {last.name}, last heard of {ago(last.heartbeat_at, at)}"))
    if not there:
        return ""
    return f'<div class="cl-row">{soft(plural(len(there), "worker"))}{"".join(chips)}</div>'


def _figures(document: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in document.items() if not isinstance(value, dict | list))


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
