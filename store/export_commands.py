"""`checkloop export`: trajectories as a file, by the filters of the dashboard's list (docs/scenarios.md)."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured
from store.vocabulary import Origin

if TYPE_CHECKING:
    from store.exports import ExportFormat

DAYS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


def export(
    file: Annotated[Path, typer.Argument(help="Written whole, or left as it was.")],
    form: Annotated[
        str, typer.Option("--format", help="jsonl, openai or parquet; by default what the file's name says.")
    ] = "",
    origin: Annotated[Origin | None, typer.Option(help="chat, rollout, evaluation or import.")] = None,
    version: Annotated[str | None, typer.Option(help="The policy version that played.")] = None,
    domain: Annotated[str | None, typer.Option(help="Of the scenario.")] = None,
    batch: Annotated[str | None, typer.Option(help="What it was played for.")] = None,
    scenario: Annotated[str | None, typer.Option(help="A part of its name, or how its hash begins.")] = None,
    tool: Annotated[str | None, typer.Option(help="A tool that was called.")] = None,
    text: Annotated[str | None, typer.Option(help="Said by a user, the policy or a tool.")] = None,
    ended: Annotated[str | None, typer.Option(help='Stop reason, or "running".')] = None,
    low: Annotated[float | None, typer.Option(help="Reward at least.")] = None,
    high: Annotated[float | None, typer.Option(help="Reward at most.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=DAYS, help="Began then or later, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=DAYS, help="Began before then, UTC.")] = None,
    run: Annotated[int | None, typer.Option(help="Trained on by the run with this id.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest first.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="jsonl: with token ids and logprobs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Writes trajectories to a file: JSON Lines with everything, OpenAI's messages, or Parquet."""
    from store.exports import ExportFormat, export_trajectories
    from store.settings import SettingsError
    from store.trajectory_filters import TrajectoryFilter

    chosen = _format(form, file)
    if tokens and chosen is not ExportFormat.JSONL:
        raise SettingsError(f"--tokens adds ids to --format jsonl; {chosen.value} has no place for them")
    wanted = TrajectoryFilter(
        origin=origin.value if origin else None,
        version=version,
        domain=domain,
        batch=batch,
        scenario=scenario,
        tool=tool,
        text=text,
        stop_reason=ended,
        low=low,
        high=high,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        run_id=run,
        searched=None,
    )
    log = open_configured(config)
    with _whole_file(file) as sink, _progress() as on_part:
        done = export_trajectories(log, wanted, chosen, sink, limit=limit, tokens=tokens, on_part=on_part)
    left_out = f", {done.left_out} without a message left out" if done.left_out else ""
    typer.echo(f"{done.written} trajectories in {file} ({chosen.value}){left_out}")


def _format(given: str, file: Path) -> "ExportFormat":
    from store.exports import ExportFormat
    from store.settings import SettingsError

    name = given or ("parquet" if file.suffix == ".parquet" else "jsonl")
    if name not in set(ExportFormat):
        raise SettingsError(f"{name!r} is no format of an export: {', '.join(ExportFormat)}")
    return ExportFormat(name)


@contextmanager
def _whole_file(file: Path) -> Iterator[IO[bytes]]:
    """A file beside it that takes its place when all is written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=file.parent, prefix=f".{file.name}.", delete=False) as sink:
        try:
            yield sink
            sink.close()
            Path(sink.name).chmod(0o644)
            os.replace(sink.name, file)
        except BaseException:
            Path(sink.name).unlink(missing_ok=True)
            raise


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
