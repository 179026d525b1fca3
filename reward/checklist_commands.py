"""`checkloop checklist`: a turn's checklist shown and edited, as on the dashboard's page (docs/scenarios.md)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured

if TYPE_CHECKING:
    from store.checklists import Checklist
    from store.database import Log
    from store.records import Scenario

app = typer.Typer(help="Checklists of the log's scenarios.", no_args_is_help=True)
ScenarioArgument = Annotated[str, typer.Argument(help="Its name, or how its hash begins.")]
TurnArgument = Annotated[int, typer.Argument(help="Index of the turn, from 0.", min=0)]
VariantOption = Annotated[int, typer.Option(min=0, help="Which of several checklists of the turn.")]


@app.command()
def show(
    scenario: ScenarioArgument,
    turn: TurnArgument,
    variant: VariantOption = 0,
    history: Annotated[bool, typer.Option("--history", help="Who wrote which revision, and why.")] = False,
    config: ConfigOption = None,
) -> None:
    """Prints the items that count now, as `edit` reads them."""
    from store.checklists import checklist_history

    log = open_configured(config)
    found = _scenario(log, scenario, turn)
    if history:
        for one in checklist_history(log, found, turn):
            said = f": {one.reason}" if one.reason else ""
            typer.echo(f"variant {one.variant}, revision {one.revision}: {len(one.items)} items, {one.author}{said}")
        return
    current = _current(log, found, turn, variant)
    listed = [item.model_dump(mode="json") for item in current.items] if current else []
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))


@app.command()
def edit(
    scenario: ScenarioArgument,
    turn: TurnArgument,
    file: Annotated[Path, typer.Argument(help="The items, a JSON list as `show` prints it.")],
    person: Annotated[str, typer.Option(help="Who writes it.")],
    reason: Annotated[str, typer.Option(help="Why, in a sentence.")],
    variant: VariantOption = 0,
    made_of: Annotated[
        int | None, typer.Option(min=0, help="The revision that it was made of; default: the newest.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the self-test.")] = False,
    config: ConfigOption = None,
) -> None:
    """Tests items against the reference and stores them as the checklist's next revision."""
    from reward.checklist_edits import read_items, store_edit, try_edit

    log = open_configured(config)
    found = _scenario(log, scenario, turn)
    items = read_items(file.read_text(encoding="utf-8"))
    tried = try_edit(found, turn, items)
    for test in tried.tests:
        typer.echo(f"{test.key}: reference {test.on_reference or 'not decided'}, {_noticed(test.discriminates)}")
    for remark in tried.remarks:
        typer.echo(f"look at this: {remark}")
    for refusal in tried.refusals:
        typer.echo(f"refused: {refusal}", err=True)
    if tried.refusals:
        raise typer.Exit(1)
    if dry_run:
        typer.echo("nothing was written")
        return
    current = _current(log, found, turn, variant)
    newest = current.revision if current else 0
    stored = store_edit(
        log,
        found.hash,
        turn,
        items,
        person=person,
        reason=reason,
        variant=variant,
        made_of=newest if made_of is None else made_of,
    )
    typer.echo(f"revision {stored.revision} of turn {turn}, {found.name!r}: {len(stored.items)} items")


def show_self_test(scenarios: "Sequence[Scenario]") -> tuple[str, ...]:
    """Prints what the self-test says of scenarios that are not imported yet; returns what is wrong with them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from reward.scenario_self_test import self_test_scenarios

    console = Console(stderr=True)
    columns = (TextColumn("self-test"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(scenarios))
        tested = self_test_scenarios(scenarios, lambda done: progress.update(bar, completed=done))
    for line in tested.lines:
        typer.echo(line)
    return tested.problems


def _noticed(discriminates: bool | None) -> str:
    return {None: "not tried", True: "notices every damage", False: "does not notice some damage"}[discriminates]


def _current(log: "Log", scenario: "Scenario", turn: int, variant: int) -> "Checklist | None":
    from store.checklists import current_checklists

    checklists = current_checklists(log, [scenario])[scenario.hash][turn]
    return next((one for one in checklists if one.variant == variant), None)


def _scenario(log: "Log", named: str, turn: int) -> "Scenario":
    from store.database import LogError
    from store.scenario_browsing import find_scenario

    found = find_scenario(log, named)
    if turn >= len(found.turns):
        raise LogError(f"scenario {found.name!r} has no turn {turn}: it has {len(found.turns)}")
    return found
