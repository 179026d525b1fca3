"""`checkloop job`: what is queued, runs and ran."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured
from store.vocabulary import JobKind, JobStatus

if TYPE_CHECKING:
    pass

app = typer.Typer(help="What workers do.", no_args_is_help=True)
FOLLOW_EVERY_S = 0.5


@app.command()
def submit(
    jobs: Annotated[list[str], typer.Argument(metavar="KIND [KEY=VALUE]...", help="Kinds in order, with options.")],
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    attempts: Annotated[int, typer.Option(help="Tries of each job.")] = 3,
    not_before: Annotated[datetime | None, typer.Option("--not-before", help="In UTC.")] = None,
    config: ConfigOption = None,
) -> None:
    """Queues jobs as one pipeline: `job submit rollout scenarios=48 judge train gate`."""
    from datetime import UTC

    from store.jobs import submit_pipeline
    from train.job_payloads import read_jobs

    pipeline = read_jobs(jobs, priority=priority, max_attempts=attempts)
    run_after = not_before.replace(tzinfo=UTC) if not_before else None
    ids = submit_pipeline(open_configured(config), pipeline, run_after=run_after)
    for job_id, job in zip(ids, pipeline, strict=True):
        typer.echo(f"job {job_id}: {job.kind}")


@app.command(name="list")
def list_all(
    status: Annotated[JobStatus | None, typer.Option(help="Only these.")] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Only these.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only those of this schedule.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.")] = 30,
    config: ConfigOption = None,
) -> None:
    """Jobs, newest first."""
    from store.jobs import list_jobs

    for job in list_jobs(open_configured(config), status=status, kind=kind, schedule=schedule, limit=limit):
        since = job.ended_at or job.started_at or job.run_after
        why = job.error or (job.exit_reason if job.status is not JobStatus.DONE else None) or ""
        words = [
            f"{job.id:>6}  {job.kind:<8}  {job.status:<9}  {job.attempts}/{job.max_attempts}",
            f"{since:%Y-%m-%d %H:%M:%S}",
            job.name,
            why.splitlines()[0][:100] if why else "",
        ]
        typer.echo("  ".join(words).rstrip())


@app.command()
def show(job: int, config: ConfigOption = None) -> None:
    """One job: what it was told, what it chose, who runs it, how it ended."""
    import json

    from store.jobs import get_job

    found = get_job(open_configured(config), job)
    typer.echo(f"job {found.id}  {found.kind}  {found.status}  ({found.name})")
    typer.echo(f"options: {json.dumps(found.payload)}")
    typer.echo(f"tries: {found.attempts} of {found.max_attempts}; priority {found.priority}")
    if found.status is JobStatus.QUEUED:
        typer.echo(f"not before: {found.run_after:%Y-%m-%d %H:%M:%S} UTC")
    if found.lease_owner is not None:
        held = f", holds {found.holds}" if found.holds else ""
        typer.echo(f"worker: {found.lease_owner} on {found.host}{held}")
    for what, moment in (("queued", found.created_at), ("started", found.started_at), ("ended", found.ended_at)):
        if moment is not None:
            typer.echo(f"{what}: {moment:%Y-%m-%d %H:%M:%S} UTC")
    if found.cancel_requested and found.status is JobStatus.RUNNING:
        typer.echo("asked to stop")
    if found.exit_reason is not None:
        typer.echo(f"exit reason: {found.exit_reason}" + (f": {found.error}" if found.error else ""))
    for what, document in (("chose", found.notes), ("result", found.result)):
        if document is not None:
            typer.echo(f"{what}: {json.dumps(document)}")


@app.command(name="log")
def show_log(
    job: int,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    config: ConfigOption = None,
) -> None:
    """What a job wrote, line by line."""
    from store.job_log import read_lines
    from store.jobs import UNFINISHED, get_job

    log = open_configured(config)
    last = 0
    while True:
        # Asked first: what it wrote before it ended is read after.
        unfinished = get_job(log, job).status in UNFINISHED
        for line in read_lines(log, job, after=last):
            typer.echo(f"{line.created_at:%H:%M:%S}  {line.text}")
            last = line.number
        if not (follow and unfinished):
            return
        time.sleep(FOLLOW_EVERY_S)


@app.command()
def cancel(job: int, config: ConfigOption = None) -> None:
    """Takes a queued job, with what follows it, out of the queue; asks a running one to stop."""
    from store.jobs import cancel_job

    found = cancel_job(open_configured(config), job)
    typer.echo(f"job {job} is {found.status}" if found.ended_at else f"job {job} is asked to stop")


@app.command()
def retry(job: int, config: ConfigOption = None) -> None:
    """Queues a failed or cancelled job again, with what was cancelled because of it."""
    from store.jobs import retry_job

    retry_job(open_configured(config), job)
    typer.echo(f"job {job} is queued again")
