"""`checkloop data`: the log's scenarios become a set of dialogues to start from (docs/data.md)."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from store.configured import ConfigOption, settings_and_log

if TYPE_CHECKING:
    from store.endpoint_settings import Price
    from train.dialogue_work import AsksAboutDialogues, DialogueReport
    from train.scenario_filters import Filtered

R = TypeVar("R")


def data(
    config: ConfigOption = None,
    domain: Annotated[list[str] | None, typer.Option(help="Instead of data.domains; may be repeated.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Instead of data.sources; may be repeated.")] = None,
    ask_filter: Annotated[
        bool, typer.Option("--filter/--no-filter", help="Have dialogues read by the LLM [filter], if there is one.")
    ] = True,
    compress: Annotated[bool, typer.Option(help="Have long thinking shortened, if there is a [compressor].")] = True,
    again: Annotated[
        bool, typer.Option("--again", help="Ask again about dialogues that were asked about before.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the LLMs' sampling.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left out, and what asking may cost.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the sets that there are.")] = False,
) -> None:
    """Filters the log's scenarios, shortens their thinking, writes an SFT set."""
    from store.sft_sets import list_sft_sets
    from train.scenario_filters import filter_scenarios
    from train.sft_making import make_compressor, make_critic, make_sft_set
    from train.sft_set import set_lines

    settings, log = settings_and_log(config)
    if listed:
        for one in list_sft_sets(log):
            typer.echo(f"{one.name}  {one.created_at:%Y-%m-%d %H:%M}  {one.dialogues} dialogues  {one.path}")
        return
    given = {"domains": domain, "sources": source}
    changes = {key: tuple(value) for key, value in given.items() if value}
    wanted = settings.data.model_copy(update=changes)
    filtered = filter_scenarios(log, wanted)
    critic = make_critic(log, settings, seed) if ask_filter else None
    compressor = make_compressor(log, settings, seed) if compress else None
    if ask_filter and critic is None:
        typer.echo("only rules filter: there is no LLM for it (name one in checkloop.toml, section [filter])")
    if compress and compressor is None:
        typer.echo("thinking stays as it is: there is no compressor (name one in checkloop.toml, section [compressor])")
    if dry_run:
        typer.echo(f"{len(filtered.kept)} of {filtered.looked_at} scenarios would be taken; nothing was written")
        for reason, count in filtered.left_out.most_common():
            typer.echo(f"  left out: {count}: {reason}")
        for name, asking, endpoint in (
            ("filter", critic, settings.filter),
            ("shorten", compressor, settings.compressor),
        ):
            if asking is not None and endpoint is not None:
                _estimate(name, asking, filtered, again, settings.prices.get(endpoint.model))
        return

    def ask(doing: str, asking: "AsksAboutDialogues[R]", filtered: "Filtered") -> "DialogueReport[R]":
        return _ask(doing, asking, filtered, again)

    made = make_sft_set(log, settings, filtered, wanted, critic, compressor, ask)
    for line in set_lines(made.made.set):
        typer.echo(line)
    if not made.made.is_new:
        typer.echo("the newest set holds the same already: nothing was written")
    if made.failed:
        raise typer.Exit(1)


def _ask(doing: str, asking: "AsksAboutDialogues[R]", filtered: "Filtered", again: bool) -> "DialogueReport[R]":
    """Exits where a limit of the endpoint's settings, or an endpoint that is down, stopped it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from reward.annotation_report import cost_text
    from train.dialogue_work import ask_about_dialogues

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        report = asyncio.run(
            ask_about_dialogues(
                asking,
                filtered.kept,
                again=again,
                on_begin=lambda count: bar.update(task, total=count),
                on_done=lambda _: bar.advance(task),
            )
        )
    typer.echo(
        f"{doing}: {report.asked} dialogues asked about, {report.skipped} done before or with nothing to ask, "
        f"{len(report.failed)} without an answer; {cost_text(report.cost, max(report.asked, 1))}"
    )
    for line in report.failed[:10]:
        typer.echo(f"  no answer: {line}")
    if report.stopped is not None:
        typer.echo(f"stopped with {report.left} left, no set was written; the same command goes on: {report.stopped}")
        raise typer.Exit(1)
    return report


def _estimate(
    name: str, asking: "AsksAboutDialogues[Any]", filtered: "Filtered", again: bool, price: "Price | None"
) -> None:
    from reward.examination import Cost

    work, report = asking.open_work(filtered.kept, again=again)
    total = Cost()
    for scenario in work:
        total.add(asking.estimate(scenario))
    text = f"{total.prompt_tokens:,} prompt and {total.completion_tokens:,} generated tokens"
    usd = price.usd(total.prompt_tokens, total.completion_tokens) if price else None
    cost = "what it costs is not known" if usd is None else f"at most {usd:.4f} USD"
    typer.echo(
        f"{name}: {len(work)} dialogues to ask about, {report.skipped} not; at most {text}; {cost}, if none goes back"
    )
