"""`checkloop worker`: a process that does the jobs."""

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from store.configured import ConfigOption, printer, settings_and_log
from store.vocabulary import JobKind

if TYPE_CHECKING:
    from store.database import Log
    from store.settings import WorkerSettings


def worker(
    name: Annotated[str, typer.Option(help="How jobs name it; default: machine and process.")] = "",
    kinds: Annotated[str, typer.Option(help="Only these, such as judge,prune.")] = "",
    accelerator: Annotated[
        list[str] | None, typer.Option(help="What it may train on, such as cuda:0; default: all of this machine.")
    ] = None,
    engine: Annotated[str, typer.Option(help="process or ray, instead of worker.engine.")] = "",
    once: Annotated[bool, typer.Option("--once", help="End when nothing is ready.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Show the workers there are, and end.")] = False,
    config: ConfigOption = None,
) -> None:
    """Fires due schedules and does jobs, one at a time, until Ctrl-C; start several for more at once."""
    from train.worker import Worker

    settings, log = settings_and_log(config)
    if show:
        _show(log)
        return
    chosen = read_kinds(kinds)
    worker_settings = with_engine(settings.worker, engine or settings.worker.engine)
    settings = settings.model_copy(update={"worker": worker_settings})
    working = Worker(
        log,
        settings,
        name=name,
        accelerators=tuple(accelerator or ()),
        kinds=chosen,
        config=config.resolve() if config else None,
        say=typer.echo,
    )

    def stop(number: int, frame: Any) -> None:
        typer.echo(f"worker {working.name}: stopping; its job goes back to the queue")
        working.stop()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    working.run(once=once)


def read_kinds(text: str) -> tuple[JobKind, ...]:
    """All of them for an empty text. Raises JobRefused for one that there is not."""
    from train.errors import JobRefused

    try:
        return tuple(JobKind(word.strip()) for word in text.split(",")) if text else tuple(JobKind)
    except ValueError as error:
        raise JobRefused(f"--kinds {text}: {error}; there are {', '.join(JobKind)}") from error


def with_engine(settings: "WorkerSettings", engine: str) -> "WorkerSettings":
    """The worker's settings with another engine. Raises JobRefused for one that there is not, or not installed."""
    from importlib.util import find_spec

    from train.errors import JobRefused

    if engine not in ("process", "ray"):
        raise JobRefused(f"--engine {engine}: there are process and ray")
    if engine == "ray" and find_spec("ray") is None:
        raise JobRefused('--engine ray: Ray is not installed here; `pip install "checkloop[ray]"`')
    return settings.model_copy(update={"engine": engine})


def _show(log: "Log") -> None:
    from rich.table import Table

    from store.jobs import list_jobs
    from store.schema import now
    from store.vocabulary import JobStatus
    from store.workers import WorkerState, list_workers

    running = {job.lease_owner: job for job in list_jobs(log, status=JobStatus.RUNNING, limit=None)}
    table = Table("worker", "machine", "process", "accelerators", "last heard of (UTC)", "does")
    for one in list_workers(log):
        job = running.get(one.name)
        does = f"job {job.id} ({job.kind})" if job else "waits"
        state = one.state(now())
        if state is not WorkerState.THERE:
            does = "ended" if state is WorkerState.ENDED else "is silent"
        heard = f"{one.heartbeat_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(one.name, one.host, str(one.pid), ", ".join(one.accelerators), heard, does)
    printer().print(table)
