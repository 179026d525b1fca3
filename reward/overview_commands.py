"""`checkloop overview`: the figures of the dashboard's first page, in the terminal."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, printer, settings_and_log
from store.vocabulary import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from reward.failure_patterns import Patterns
    from store.coverage import Coverage
    from store.figures import Counts, Slice


def overview(
    origin: Annotated[Origin, typer.Option(help="What was played: evaluation, rollout, chat.")] = Origin.EVALUATION,
    domain: Annotated[str | None, typer.Option(help="Only rates of this domain.")] = None,
    version: Annotated[str | None, typer.Option(help="Only rates of this version.")] = None,
    limit: Annotated[int, typer.Option(help="Dialogues that failure patterns are looked for in.", min=1)] = 300,
    config: ConfigOption = None,
) -> None:
    """Live version, alerts, pass rates with intervals, what goes wrong, what ran in the last 24 hours."""
    from reward.failure_patterns import TREND, find_patterns
    from reward.newest_evidence import newest_evidence
    from reward.rate_alerts import LOOK_BACK, find_alerts, well_judged
    from store.coverage import coverage_by, coverage_cells, item_coverage
    from store.figures import Slice, rates_by
    from store.night import jobs_since, runs_since, stages_since
    from store.versions import live_version

    settings, log = settings_and_log(config)
    now, console = datetime.now(UTC), printer()
    live = live_version(log)
    typer.echo(f"live: {live.name}" if live else "no version is live yet")
    for pair in newest_evidence(log):
        typer.echo(f"{pair.words}{f' ({pair.evidence.figures})' if pair.evidence else ''}")
    for alert in find_alerts(log, now, missed_after_s=settings.worker.missed_after_s):
        typer.echo(f"ALERT {alert.kind}: {alert.where}: {alert.detail}")
    chosen: dict[str, str | None] = {"origin": origin, "domain": domain, "version": version}
    cells = coverage_cells(log)
    by_version = rates_by(log, Slice.VERSION, **chosen)
    if not by_version:
        typer.echo(f"nothing of origin {origin} is judged yet")
    covered = {by: coverage_by(cells, by, **chosen) for by in (Slice.VERSION, Slice.DOMAIN)}
    covered |= item_coverage(log, **chosen)
    for by in covered if by_version else ():
        console.print(_rates(by, rates_by(log, by, **chosen), covered[by]))
    for name, of_one in coverage_by(cells, Slice.VERSION, **chosen).items():
        typer.echo(f"{name}: {of_one.judged} of {of_one.eligible} eligible dialogues judged")
    if judged := well_judged(by_version)[-TREND:]:
        *earlier, newest = judged
        found = find_patterns(log, version=newest, earlier=earlier, origin=origin, domain=domain, limit=limit)
        console.print(_patterns(found))
    since = now - LOOK_BACK
    jobs, runs, stages = jobs_since(log, since), runs_since(log, since), stages_since(log, since)
    for job in jobs.rows:
        typer.echo(f"job {job.id} {job.kind} {job.status} {job.pipeline}")
    for one in runs.rows:
        made = f" → {one.version} {one.state or ''}" if one.version else f": {one.run.error}" if one.run.error else ""
        typer.echo(f"run {one.run.name} {one.run.kind} from {one.run.base_version or '–'} {one.run.status}{made}")
    for stage in stages.rows:
        typer.echo(f"stage {stage.key} of {stage.loop} {stage.status}{f': {stage.error}' if stage.error else ''}")
    for more, what in ((jobs.more, "jobs"), (runs.more, "runs"), (stages.more, "stages")):
        if more:
            typer.echo(f"and {more} earlier {what}")


def _rates(by: "Slice", rates: "dict[str, Counts]", covered: "Mapping[str, Coverage]") -> "Table":
    """`covered`: dialogues; by kind, channel and tool those whose scenario has such an item."""
    from rich.table import Table
    from rich.text import Text

    from reward.intervals import wilson

    table = Table(by.value, "pass rate", "95 % interval", "judged", "UNSCORED", "dialogues judged")
    for name, counts in rates.items():
        share = wilson(counts.passed, counts.judged)
        known = counts.judged > 0
        table.add_row(
            Text(name),
            f"{100 * share.mean:.1f} %" if known else "–",
            f"{100 * share.low:.1f} to {100 * share.high:.1f}" if known else "–",
            f"{counts.judged:,}",
            f"{100 * counts.unscored / counts.total:.1f} %",
            f"{covered[name].judged:,} of {covered[name].eligible:,}" if name in covered else "–",
        )
    return table


def _patterns(found: "Patterns") -> "Table":
    from rich.table import Table

    table = Table("what went wrong", "items", *found.earlier, found.version, "the newest one")
    for one in found.figures:
        newest = one.behind[0]
        shares = ["–" if share is None else f"{100 * share:.1f} %" for share in (*one.trend, one.share)]
        table.add_row(one.pattern, str(one.items), *shares, f"{newest.trajectory_id} turn {newest.turn_index + 1}")
    return table
