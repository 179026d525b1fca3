"""`checkloop data`: the log's scenarios become a set of dialogues to start from (docs/data.md)."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, settings_and_log

if TYPE_CHECKING:
    from store.settings import Settings
    from train.compressor import CompressionReport, Compressor
    from train.sft_set import CountTokens, Filtered


def data(
    config: ConfigOption = None,
    domain: Annotated[list[str] | None, typer.Option(help="Instead of data.domains; may be repeated.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Instead of data.sources; may be repeated.")] = None,
    compress: Annotated[bool, typer.Option(help="Have long thinking shortened, if there is a [compressor].")] = True,
    again: Annotated[bool, typer.Option("--again", help="Ask again about thinking that was shortened before.")] = False,
    seed: Annotated[int, typer.Option(help="Of the compressor's sampling.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left out, and what asking may cost.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the sets that there are.")] = False,
) -> None:
    """Filters the log's scenarios, shortens their thinking, writes an SFT set."""
    from agent.role_endpoint import RoleEndpoint
    from store.sft_sets import list_sft_sets
    from store.vocabulary import ModelRole
    from train.compressor import Compressor
    from train.sft_set import filter_scenarios, make_set, set_lines

    settings, log = settings_and_log(config)
    if listed:
        for one in list_sft_sets(log):
            typer.echo(f"{one.name}  {one.created_at:%Y-%m-%d %H:%M}  {one.dialogues} dialogues  {one.path}")
        return
    given = {"domains": domain, "sources": source}
    changes = {key: tuple(value) for key, value in given.items() if value}
    wanted = settings.data.model_copy(update=changes)
    filtered = filter_scenarios(log, wanted)
    compressor = None
    if compress and settings.compressor is not None:
        price = settings.prices.get(settings.compressor.model)
        endpoint = RoleEndpoint(ModelRole.COMPRESSOR, settings.compressor, log=log, price=price)
        compressor = Compressor(log, endpoint, settings.compression, seed=seed)
    elif compress:
        typer.echo("thinking stays as it is: there is no compressor (name one in checkloop.toml, section [compressor])")
    if dry_run:
        _estimate(filtered, compressor, again, settings)
        return
    report = _ask(compressor, filtered, again) if compressor is not None else None
    if report is not None and report.stopped is not None:
        typer.echo(f"stopped with {report.left} left, no set was written; the same command goes on: {report.stopped}")
        raise typer.Exit(1)
    made = make_set(log, settings.home, filtered, report.done if report else {}, wanted, _counter(settings))
    for line in set_lines(made.set):
        typer.echo(line)
    if not made.is_new:
        typer.echo("the newest set holds the same already: nothing was written")
    if report is not None and report.failed:
        raise typer.Exit(1)


def _ask(compressor: "Compressor", filtered: "Filtered", again: bool) -> "CompressionReport":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from reward.annotation_report import cost_text
    from train.compressor import compress_thinking

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("shortening thinking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        report = asyncio.run(
            compress_thinking(
                compressor,
                filtered.kept,
                again=again,
                on_begin=lambda count: bar.update(task, total=count),
                on_done=lambda _: bar.advance(task),
            )
        )
    typer.echo(
        f"{report.asked} dialogues asked about, {report.skipped} done before or with nothing to shorten, "
        f"{len(report.failed)} without an answer; {cost_text(report.cost, max(report.asked, 1))}"
    )
    for line in report.failed[:10]:
        typer.echo(f"  no answer, the original stays: {line}")
    return report


def _estimate(filtered: "Filtered", compressor: "Compressor | None", again: bool, settings: "Settings") -> None:
    from reward.examination import Cost

    typer.echo(f"{len(filtered.kept)} of {filtered.looked_at} scenarios would be taken; nothing was written")
    for reason, count in filtered.left_out.most_common():
        typer.echo(f"  left out: {count}: {reason}")
    if compressor is None or settings.compressor is None:
        return
    work, report = compressor.open_work(filtered.kept, again=again)
    total = Cost()
    for scenario in work:
        total.add(compressor.estimate(scenario))
    text = f"{total.prompt_tokens:,} prompt and {total.completion_tokens:,} generated tokens"
    price = settings.prices.get(settings.compressor.model)
    usd = price.usd(total.prompt_tokens, total.completion_tokens) if price else None
    cost = "what it costs is not known" if usd is None else f"at most {usd:.4f} USD"
    typer.echo(f"{len(work)} dialogues to ask about, {report.skipped} not; {text}; {cost}, if nothing goes back")


def _counter(settings: "Settings") -> "CountTokens":
    from agent.renderer_choice import load_renderer
    from store.records import Scenario
    from train.references import reference_messages
    from train.registry import model_directory

    renderer = load_renderer(model_directory(settings), settings.model.renderer)

    def count(scenario: Scenario) -> int:
        ids, _ = renderer.dialogue(reference_messages(scenario), [tool.as_openai() for tool in scenario.tools])
        return len(ids)

    return count
