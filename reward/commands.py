"""`checkloop judge`: judges what the log holds unjudged, lets another judge speak beside, says what it would cost."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from store.configured import ConfigOption
from store.vocabulary import JudgeMode, Origin

if TYPE_CHECKING:
    from reward.judge import Judge
    from reward.judging_estimate import Estimate
    from reward.judging_plan import JudgingOptions
    from reward.judging_report import JudgingReport
    from store.database import Log
    from store.endpoint_settings import Price

judge_app = typer.Typer(help="Judges logged turns by their checklists.")

_REASONS = 5
"""Kinds of reasons of UNSCORED that are shown."""


@judge_app.callback(invoke_without_command=True)
def judge(
    context: typer.Context,
    config: ConfigOption = None,
    unscored: Annotated[bool, typer.Option("--unscored", help="Try again what could not be judged.")] = False,
    beside: Annotated[
        bool, typer.Option("--beside", help="Judge items without a check once more; these verdicts do not count.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Let the LLM judge items that carry checks; beside, to compare.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask even what the log holds an answer to.")] = False,
    model: Annotated[str | None, typer.Option(help="Another judge than that of the settings, alone.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where that judge is.")] = None,
    name: Annotated[str | None, typer.Option(help="What verdicts call that judge, if not like its model.")] = None,
    mode: Annotated[JudgeMode | None, typer.Option(help="How it is asked.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="A file instead of the mode's prompt.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only trajectories of this batch.")] = None,
    origin: Annotated[Origin | None, typer.Option(help="Only of this origin.")] = None,
    version: Annotated[str | None, typer.Option(help="Only of this policy version.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only of this domain.")] = None,
    trajectory: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many trajectories that need it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nobody; say what it would take.")] = False,
) -> None:
    """Judges what the log holds unjudged: by checks, by rules, by what was said before, by the LLM judge."""
    if context.invoked_subcommand is not None:
        return
    from reward.judge import make_judge
    from reward.judging_estimate import estimate, with_work
    from reward.judging_plan import JudgingOptions
    from store.database import open_log
    from store.settings import SettingsError, load_settings
    from store.trajectories import judgeable_trajectories

    if beside and calibrate:
        raise typer.BadParameter("--calibrate speaks beside by itself: leave --beside out")
    if unscored and (beside or calibrate):
        raise typer.BadParameter("--unscored is about verdicts that count, --beside and --calibrate about others")
    if trajectory and (batch or origin or version or domain):
        raise typer.BadParameter("--trajectory names trajectories: leave the other filters out")
    settings = load_settings(config, **_overrides(model, base_url, name, mode))
    if settings.judge is None and (beside or calibrate or prompt or mode):
        raise SettingsError("there is no LLM judge: name it in checkloop.toml, section [judge], or with --model")
    log = open_log(settings.url, settings.log.durability)
    judging = make_judge(log, settings, prompt)
    options = JudgingOptions(unscored, beside, calibrate, fresh)
    names = list(trajectory or judgeable_trajectories(log, batch=batch, origin=origin, version=version, domain=domain))
    if limit is not None:
        names = with_work(judging, names, options, limit)
    if dry_run:
        show_estimate(_with_progress(names, lambda tick: estimate(log, judging, settings.prices, names, options, tick)))
        return
    report = _with_progress(names, lambda tick: asyncio.run(judging.judge_log(names, options, tick)))
    show_report(report)
    if report.stopped is not None:
        _say_what_is_left(log, judging, settings.prices, names, options, report.stopped)
        raise typer.Exit(1)


def show_estimate(found: "Estimate") -> None:
    """Prints what judging would take."""
    _show_counts(found.trajectories, found.turns, found.by)
    typer.echo(f"calls: at most {found.calls}, quotes that are asked for again aside")
    usd = "unknown: add [prices] of the judge's model" if found.usd is None else f"about {found.usd:.4f} USD"
    typer.echo(f"tokens: about {found.prompt_tokens} sent, {found.completion_tokens} answered; cost: {usd}")


def show_report(report: "JudgingReport") -> None:
    """Prints what a run of the judge came to."""
    from reward.judging_report import spent_line

    _show_counts(report.trajectories, report.turns, report.by)
    said = ", ".join(f"{outcome.value} {count}" for outcome, count in sorted(report.outcomes.items()))
    typer.echo(f"verdicts: {said or 'none'}")
    for reason, count in report.reasons.most_common(_REASONS):
        typer.echo(f"  UNSCORED {count}: {reason}")
    for name, spent in report.spent:
        typer.echo(spent_line(name, spent))


def _show_counts(trajectories: int, turns: int, by: Any) -> None:
    typer.echo(f"{trajectories} trajectories, {turns} turns with something to judge")
    if by:
        names = {"check": "checks", "rule": "rules", "cache": "what was said before", "llm": "LLM"}
        typer.echo("items by " + ", ".join(f"{name}: {by[key]}" for key, name in names.items()))


def _say_what_is_left(
    log: "Log",
    judging: "Judge",
    prices: "dict[str, Price]",
    names: list[str],
    options: "JudgingOptions",
    stopped: str,
) -> None:
    from reward.judging_estimate import estimate

    left = estimate(log, judging, prices, names, options)
    typer.echo(f"stopped: {stopped}", err=True)
    typer.echo(f"left: {left.by['llm']} items of {left.turns} turns, at most {left.calls} calls", err=True)


def _overrides(model: str | None, base_url: str | None, name: str | None, mode: JudgeMode | None) -> dict[str, Any]:
    """A judge that is named on the command line speaks alone; another model is not called by the settings' name."""
    overrides: dict[str, Any] = {}
    named = {"model": model, "base_url": base_url, "name": "" if name is None and model is not None else name}
    judge = {key: value for key, value in named.items() if value is not None}
    if judge:
        overrides = {"judge": judge, "judging": {"panel": (), "draws": 1, "combination": "majority"}}
    if mode is not None:
        overrides.setdefault("judging", {})["mode"] = mode
    return overrides


def _with_progress(names: list[str], work: Any) -> Any:
    """Runs `work` with a function that it calls with its counts so far; shown on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("trajectories", total=len(names))
        return work(lambda counts: progress.update(bar, completed=counts.trajectories))
