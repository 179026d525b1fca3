"""`checkloop annotate`: writes checklists for the log's scenarios, promotes chats, lists what waits for a person."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, settings_and_log
from store.vocabulary import Split

if TYPE_CHECKING:
    from reward.dialogue_annotator import Annotator
    from reward.examination import Annotated as AnnotatedWork
    from reward.panel import Panel
    from reward.self_test import JudgeItems
    from store.database import Log
    from store.records import Scenario
    from store.settings import Settings


def annotate(
    config: ConfigOption = None,
    split: Annotated[Split | None, typer.Option(help="Only scenarios of this split.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only scenarios of this domain.")] = None,
    source: Annotated[str | None, typer.Option(help="Only scenarios of this source.")] = None,
    scenario: Annotated[str | None, typer.Option(help="One scenario: its name, or how its hash begins.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many scenarios that need it.")] = None,
    chat: Annotated[str | None, typer.Option(help="A chat of the log: promoted to a scenario first.")] = None,
    tools: Annotated[
        Path | None, typer.Option(help="With --chat: the tools it had, JSON, where the log does not know them.")
    ] = None,
    variants: Annotated[int | None, typer.Option(min=1, help="Independent checklists a turn.")] = None,
    variant: Annotated[int | None, typer.Option(min=0, help="Only this one of them.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what has a checklist, or waits for a person.")] = False,
    with_judge: Annotated[
        bool, typer.Option("--with-judge", help="The self-test asks the judge about items without a check.")
    ] = False,
    answer: Annotated[
        Path | None, typer.Option(help="Checklists that a person wrote, in the annotator's form, for one scenario.")
    ] = None,
    person: Annotated[str, typer.Option(help="With --answer: who wrote them.")] = "",
    seed: Annotated[int, typer.Option(help="Of the annotator's sampling.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it would be.")] = False,
    waiting: Annotated[bool, typer.Option("--list", help="List what waits for a person, with the reasons.")] = False,
) -> None:
    """Writes a checklist for every turn that has none, with the annotator LLM of the settings."""
    from reward.annotation_choice import (
        annotator_endpoint,
        choose_scenarios,
        chosen_variants,
        first_open,
        self_test_panel,
    )
    from reward.annotation_report import report_lines
    from reward.annotator import annotate_scenarios
    from reward.dialogue_annotator import Annotator
    from reward.self_test_judge import judge_items_with
    from store.settings import SettingsError

    settings, log = settings_and_log(config)
    if waiting:
        return _list_waiting(log)
    if tools is not None and chat is None:
        raise SettingsError("--tools says which tools a chat had: it needs --chat ID")
    if (answer is None) != (not person):
        raise SettingsError("--answer FILE and --person NAME go together: checklists have an author")
    panel = self_test_panel(log, settings) if with_judge else None
    judge_items = judge_items_with(panel) if panel is not None else None
    if answer is not None:
        if dry_run:
            raise SettingsError("--dry-run says what the annotator would be asked: with --answer nobody is asked")
        if chat is not None:
            answered = [_promoted(log, chat, tools, dry_run=False)]
        else:
            answered = choose_scenarios(log, split=split, domain=domain, source=source, named=scenario)
        _store_answer(log, answered, variant or 0, again, answer, person, judge_items)
        return _say_spent(panel)
    endpoint = annotator_endpoint(log, settings)
    chosen = chosen_variants(settings, variants, variant)
    annotator = Annotator(log, endpoint, settings.annotation)
    if chat is not None:
        scenarios = [_promoted(log, chat, tools, dry_run=dry_run)]
    else:
        scenarios = choose_scenarios(log, split=split, domain=domain, source=source, named=scenario)
    if limit is not None:
        scenarios = first_open(log, scenarios, annotator, chosen, limit, again=again)
    if dry_run:
        _estimate(log, scenarios, annotator, chosen, again, settings)
        if with_judge:
            typer.echo("what the self-test asks the judge follows from the items and is not counted here")
        return None
    with _progress() as (begin, advance):
        report = asyncio.run(
            annotate_scenarios(
                log,
                scenarios,
                endpoint,
                settings=settings.annotation,
                variants=chosen,
                again=again,
                seed=seed,
                judge_items=judge_items,
                on_begin=begin,
                on_done=advance,
            )
        )
    for line in report_lines(report):
        typer.echo(line)
    _say_spent(panel)
    if report.of(None) or report.stopped is not None:
        raise typer.Exit(1)
    return None


def _promoted(log: "Log", chat_id: str, tools: Path | None, *, dry_run: bool) -> "Scenario":
    from env_sim.chat_worlds import promote_chat, read_tools, scenario_of_chat

    known = read_tools(tools) if tools is not None else None
    if dry_run:
        return scenario_of_chat(log, chat_id, known)
    made = promote_chat(log, chat_id, known)
    typer.echo(f"chat {chat_id} is scenario {made.name!r} ({made.hash[:12]}), split {made.split.value}")
    return made


def _estimate(
    log: "Log",
    scenarios: Sequence["Scenario"],
    annotator: "Annotator",
    variants: Sequence[int],
    again: bool,
    settings: "Settings",
) -> None:
    from reward.annotation_report import cost_text
    from reward.annotator import open_work
    from reward.examination import Cost

    work, skipped = open_work(log, scenarios, annotator, variants, again=again)
    total = Cost()
    for one in work:
        total.add(annotator.estimate(one))
    typer.echo(f"{len(work)} dialogues to annotate, {skipped} skipped; nothing was asked")
    text = (
        f"{total.calls} calls, at most {total.prompt_tokens:,} prompt and {total.completion_tokens:,} generated tokens"
    )
    price = settings.prices.get(settings.annotator.model) if settings.annotator else None
    if price is None:
        typer.echo(f"{text}; {cost_text(total, 1)}")
    else:
        usd = price.usd(total.prompt_tokens, total.completion_tokens)
        typer.echo(f"{text}; at most {usd:.4f} USD, {usd / max(len(work), 1):.4f} a dialogue, if nothing goes back")


def _store_answer(
    log: "Log",
    scenarios: Sequence["Scenario"],
    variant: int,
    again: bool,
    file: Path,
    person: str,
    judge_items: "JudgeItems | None",
) -> None:
    from reward.annotation_report import named
    from reward.examination import Work, store_answer
    from store.checklists import current_checklists
    from store.settings import SettingsError

    if len(scenarios) != 1:
        raise SettingsError(
            f"{len(scenarios)} scenarios meet the conditions: --answer is for one, name it (--scenario)"
        )
    (scenario,) = scenarios
    current_T = current_checklists(log, [scenario])[scenario.hash]
    there = [any(one.variant == variant for one in current) for current in current_T]
    turns = tuple(turn for turn in range(len(scenario.turns)) if again or not there[turn])
    if not turns:
        raise SettingsError(
            f"every turn of {scenario.name!r} has a checklist of variant {variant}: --again replaces it"
        )
    work = Work(scenario, variant, turns)
    text = file.read_text(encoding="utf-8")
    stored = asyncio.run(store_answer(log, work, text, person=person, judge_items=judge_items))
    figures = stored.figures
    typer.echo(f"{named(stored)}: {figures['items']} items in {len(turns)} turns, {figures['with_check']} with a check")
    for problem in stored.problems:
        typer.echo(f"  {problem}")


def _list_waiting(log: "Log") -> None:
    from store.annotations import waiting_for_person

    found = waiting_for_person(log)
    for one in found:
        annotation = one.annotation
        variant = f", variant {annotation.variant}" if annotation.variant else ""
        typer.echo(f"{annotation.scenario_hash[:12]}  {one.scenario_name} ({one.domain}){variant}")
        typer.echo(f"  {annotation.annotator}, {annotation.attempts} answers, {annotation.created_at:%Y-%m-%d %H:%M}")
        for problem in annotation.problems:
            typer.echo(f"  - {problem}")
    typer.echo(f"{len(found)} dialogues wait for a person" if found else "nothing waits for a person")


def _say_spent(panel: "Panel | None") -> None:
    """What the self-test's questions came to at each judge."""
    from reward.judging_report import spent_line

    for judge in panel.judges if panel is not None else ():
        typer.echo(f"self-test by {spent_line(judge.name, judge.endpoint.spent)}")


@contextmanager
def _progress() -> Iterator[tuple[Callable[[int], None], Callable[["AnnotatedWork"], None]]]:
    """A bar on standard error; where that is no terminal, a line every ten dialogues."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from reward.annotation_report import named

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("annotating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        ended = 0

        def begin(total: int) -> None:
            bar.update(task, total=total)

        def advance(one: "AnnotatedWork") -> None:
            nonlocal ended
            ended += 1
            bar.advance(task)
            if not console.is_terminal and ended % 10 == 0:
                console.print(f"{ended} dialogues, the last one: {named(one)}", soft_wrap=True)

        yield begin, advance
