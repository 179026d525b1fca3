"""`checkloop schedule`: when which jobs are queued."""

from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured, printer
from store.vocabulary import JobKind, MissedRuns, Overlap

if TYPE_CHECKING:
    from store.database import Log
    from store.schedules import Firing

app = typer.Typer(help="When which jobs are queued.", no_args_is_help=True)
JobsArgument = Annotated[
    list[str], typer.Argument(metavar="KIND [KEY=VALUE]...", help="Kinds of jobs in order, each with its options.")
]
CronOption = Annotated[str | None, typer.Option("--cron", help="Five fields, such as '0 3 * * *'.")]
EveryOption = Annotated[str | None, typer.Option("--every", help="Such as 200-judged-turns.")]
AfterOption = Annotated[JobKind | None, typer.Option("--after", help="Each time a job of this kind is done.")]
ZoneOption = Annotated[str | None, typer.Option("--tz", help="Time zone of --cron, such as Europe/Berlin [UTC].")]
MissedOption = Annotated[MissedRuns | None, typer.Option(help="Times that passed while no worker ran [once].")]
OverlapOption = Annotated[Overlap | None, typer.Option(help="Due while its last pipeline is unfinished [skip].")]
PriorityOption = Annotated[int, typer.Option(help="Higher goes first.")]
AttemptsOption = Annotated[int, typer.Option(help="Tries of each job.")]


@app.command()
def add(
    name: str,
    jobs: JobsArgument,
    cron: CronOption = None,
    every: EveryOption = None,
    after: AfterOption = None,
    tz: ZoneOption = None,
    missed: MissedOption = None,
    overlap: OverlapOption = None,
    priority: PriorityOption = 0,
    attempts: AttemptsOption = 3,
    config: ConfigOption = None,
) -> None:
    """A new schedule: `schedule add nightly --cron "0 3 * * *" rollout judge train gate prune`."""
    from store.schema import now
    from train.errors import JobRefused
    from train.job_payloads import read_jobs
    from train.scheduler import create_schedule
    from train.triggers import choose_trigger

    trigger = choose_trigger(cron, every, after)
    if trigger is None:
        raise JobRefused("when? Give one of --cron, --every and --after")
    pipeline = read_jobs(jobs, priority=priority, max_attempts=attempts)
    log = open_configured(config)
    create_schedule(
        log,
        name,
        trigger,
        pipeline,
        at=now(),
        zone=tz or "UTC",
        missed=missed or MissedRuns.ONCE,
        overlap=overlap or Overlap.SKIP,
    )
    _show(log, name)


@app.command()
def edit(
    name: str,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="[KIND [KEY=VALUE]...]...")] = None,
    cron: CronOption = None,
    every: EveryOption = None,
    after: AfterOption = None,
    tz: ZoneOption = None,
    missed: MissedOption = None,
    overlap: OverlapOption = None,
    priority: PriorityOption = 0,
    attempts: AttemptsOption = 3,
    config: ConfigOption = None,
) -> None:
    """Changes what is given; jobs are given all or not at all."""
    from store.schema import now
    from train.job_payloads import read_jobs
    from train.scheduler import edit_schedule
    from train.triggers import choose_trigger

    trigger = choose_trigger(cron, every, after)
    pipeline = read_jobs(jobs, priority=priority, max_attempts=attempts) if jobs else []
    log = open_configured(config)
    edit_schedule(log, name, at=now(), trigger=trigger, jobs=pipeline, zone=tz, missed=missed, overlap=overlap)
    _show(log, name)


@app.command(name="list")
def list_all(config: ConfigOption = None) -> None:
    """All schedules: when, what, last and next."""
    from rich.table import Table

    from store.schedules import list_schedules
    from train.job_payloads import describe_jobs
    from train.triggers import describe, read_trigger

    table = Table("schedule", "when", "jobs", "last fired (UTC)", "next (UTC)")
    for schedule in list_schedules(open_configured(config)):
        last = f"{schedule.last_fired:%Y-%m-%d %H:%M}" if schedule.last_fired else "–"
        due = "paused" if schedule.paused else f"{schedule.next_due:%Y-%m-%d %H:%M}" if schedule.next_due else "–"
        when = describe(read_trigger(schedule.trigger), schedule.zone)
        table.add_row(schedule.name, when, describe_jobs(schedule.jobs), last, due)
    printer().print(table)


@app.command()
def show(name: str, config: ConfigOption = None) -> None:
    """One schedule: its jobs and policies, the next five times, what came of the last ten."""
    _show(open_configured(config), name)


@app.command()
def pause(name: str, config: ConfigOption = None) -> None:
    """It does not fire until it is resumed; what is queued already runs."""
    from train.scheduler import pause_schedule

    pause_schedule(open_configured(config), name)
    typer.echo(f"{name} is paused")


@app.command()
def resume(name: str, config: ConfigOption = None) -> None:
    """It fires again; what happened during the pause does not count."""
    from store.schema import now
    from train.scheduler import resume_schedule

    log = open_configured(config)
    resume_schedule(log, name, now())
    _show(log, name)


@app.command()
def run(name: str, config: ConfigOption = None) -> None:
    """Queues its pipeline now."""
    from store.schema import now
    from train.scheduler import run_schedule

    typer.echo(_firing_line(run_schedule(open_configured(config), name, now())))


@app.command()
def remove(name: str, config: ConfigOption = None) -> None:
    """Its jobs stay, those that are queued, too."""
    from store.schedules import remove_schedule

    left = remove_schedule(open_configured(config), name)
    typer.echo(f"{name} is removed" + (f"; {left} of its jobs are unfinished and stay" if left else ""))


def _show(log: "Log", name: str) -> None:
    from store.schedules import get_schedule, list_firings
    from store.schema import now
    from train.job_payloads import describe_jobs
    from train.triggers import describe, next_times, read_trigger, zone_of

    schedule = get_schedule(log, name)
    trigger = read_trigger(schedule.trigger)
    state = "paused" if schedule.paused else "active"
    typer.echo(f"{name}: {describe(trigger, schedule.zone)}, {state}")
    typer.echo(f"jobs: {describe_jobs(schedule.jobs)}")
    typer.echo(f"missed runs: {schedule.missed}; overlap: {schedule.overlap}")
    for moment in [] if schedule.paused else next_times(trigger, schedule.zone, now()):
        typer.echo(f"next: {moment.astimezone(zone_of(schedule.zone)):%a %Y-%m-%d %H:%M %Z}")
    for firing in list_firings(log, name):
        typer.echo(_firing_line(firing))


def _firing_line(firing: "Firing") -> str:
    said = " ".join(part for part in (firing.outcome, firing.pipeline, firing.reason) if part)
    return f"{firing.created_at:%Y-%m-%d %H:%M:%S} UTC  {said}  (due: {firing.due})"
