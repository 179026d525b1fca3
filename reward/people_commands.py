"""`checkloop judge say, bad, restore, sample, queue`: what people say of turns, and which ones they are shown."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reward.agreement_commands import app as agreement_commands
from reward.review_commands import app as review_commands
from store.configured import ConfigOption, open_configured, printer
from store.vocabulary import Outcome

if TYPE_CHECKING:
    from reward.people import Revised
    from store.verdicts import Reward

app = typer.Typer(help="Judges and people.", no_args_is_help=True)
app.add_typer(agreement_commands)
app.add_typer(review_commands)
TrajectoryArgument = Annotated[str, typer.Argument(help="Id of the trajectory.")]
TurnArgument = Annotated[int, typer.Argument(help="Index of the turn, from 0.", min=0)]
ItemArgument = Annotated[str, typer.Argument(help="Key of the item in the turn's checklist.")]
PersonOption = Annotated[str, typer.Option(help="Who says so.")]
ReasonOption = Annotated[str, typer.Option(help="Why, in a sentence.")]


class Said(StrEnum):
    """What a person can say of an item that is sound."""

    PASS = Outcome.PASS.value
    FAIL = Outcome.FAIL.value


@app.command()
def say(
    trajectory: TrajectoryArgument,
    turn: TurnArgument,
    item: ItemArgument,
    outcome: Annotated[Said, typer.Argument(case_sensitive=False)],
    person: PersonOption,
    reason: ReasonOption,
    step: Annotated[int | None, typer.Option(help="Step of the turn, from 0, at which a PASS first held.")] = None,
    quote: Annotated[str, typer.Option(help="A piece of the turn that shows it.")] = "",
    config: ConfigOption = None,
) -> None:
    """A person's verdict on an item of a turn: it wins for rewards from now on; saying another takes it back."""
    from reward.people import say as write

    told = write(
        open_configured(config),
        trajectory,
        turn,
        item,
        outcome.value,
        person=person,
        reason=reason,
        step=step,
        quote=quote,
    )
    typer.echo(f"{item} of turn {turn}: {told.verdict.outcome}, says {told.verdict.judge}")
    typer.echo(f"reward of {trajectory}: {_reward(told.before)} before, {_reward(told.after)} now")


@app.command()
def bad(
    trajectory: TrajectoryArgument,
    turn: TurnArgument,
    item: ItemArgument,
    person: PersonOption,
    reason: ReasonOption,
    config: ConfigOption = None,
) -> None:
    """This item is bad: it leaves the checklist's next revision; rewards that were computed with it are again."""
    from reward.people import call_bad

    revised = call_bad(open_configured(config), trajectory, turn, item, person=person, reason=reason)
    _tell(f"{item} is out of turn {turn}'s checklist", revised)


@app.command()
def restore(
    trajectory: TrajectoryArgument,
    turn: TurnArgument,
    item: ItemArgument,
    person: PersonOption,
    reason: ReasonOption,
    config: ConfigOption = None,
) -> None:
    """Takes "this item is bad" back: the item returns with its weight; rewards are computed again."""
    from reward.people import restore as put_back

    revised = put_back(open_configured(config), trajectory, turn, item, person=person, reason=reason)
    _tell(f"{item} is back in turn {turn}'s checklist", revised)


@app.command()
def sample(
    randomly: Annotated[int, typer.Option("--random", help="Turns drawn with equal chance.", min=0)] = 20,
    disputed: Annotated[int, typer.Option(help="Turns on which judges, votes or thumbs disagree most.", min=0)] = 10,
    uncertain: Annotated[int, typer.Option(help="Turns of which a judge was least sure.", min=0)] = 10,
    anchors: Annotated[int, typer.Option(help="Fixes the anchor set, once, with so many turns.", min=0)] = 0,
    batch: Annotated[str, typer.Option(help="Name of the batch, which is also the seed. Default: the time.")] = "",
    config: ConfigOption = None,
) -> None:
    """Puts judged turns up for review; only the random share gives unbiased figures, and is marked."""
    from reward.review_batches import batch_name, draw_batch

    if anchors and batch:
        raise typer.BadParameter("the anchor set has a name of its own: leave --batch out")
    drawn = draw_batch(
        open_configured(config),
        batch_name(anchors, batch, datetime.now(UTC)),
        randomly=randomly,
        disputed=disputed,
        uncertain=uncertain,
        anchors=anchors,
    )
    if not drawn.judged:
        typer.echo("no turn has been judged yet: `checkloop judge` first")
        return
    if not drawn.turns:
        typer.echo("nothing to put up: no judged turn is new, disputed or uncertain")
        return
    parts = ", ".join(f"{count} {reason}" for reason, count in drawn.counts.items())
    typer.echo(f"batch {drawn.name}: {parts}; of {drawn.judged} judged turns")
    if drawn.reviewed:
        typer.echo(f"{drawn.reviewed} of them have been reviewed before")
    typer.echo(f"`checkloop judge queue {drawn.name}` lists them")


@app.command()
def queue(
    batch: Annotated[str, typer.Argument(help="Default: the newest but the anchor set.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Turns that are done, too.")] = False,
    config: ConfigOption = None,
) -> None:
    """The turns of a batch in the order in which to review them, with the items that are still open."""
    from rich.table import Table
    from rich.text import Text

    from store.review_samples import ANCHORS, review_batches, review_queue

    log = open_configured(config)
    names = [found.name for found in review_batches(log) if found.name != ANCHORS]
    if not batch and not names:
        typer.echo("no turn has been put up for review: `checkloop judge sample`")
        return
    name = batch or names[-1]
    turns = review_queue(log, name)
    table = Table("#", "trajectory", "turn", "why", "score", "user", "open items")
    for number, turn in enumerate(turns, start=1):
        if turn.done and not everything:
            continue
        found = turn.sample
        score = "–" if found.score is None else f"{found.score:.2f}"
        open_items = ", ".join(turn.open_items) if turn.open_items else "done"
        cells = (str(number), found.trajectory_id, str(found.turn_index), found.reason.value, score)
        table.add_row(*cells, Text(_shortened(turn.user)), Text(open_items))
    if table.row_count:
        printer().print(table)
    left = [turn for turn in turns if not turn.done]
    items = sum(len(turn.open_items) for turn in left)
    typer.echo(f"batch {name}: {len(left)} of {len(turns)} turns are open, {items} items")


def _tell(what: str, revised: "Revised") -> None:
    for checklist in revised.checklists:
        weights = ", ".join(f"{item.id} {item.weight:.3g}" for item in checklist.items) or "nothing is left of it"
        typer.echo(f"{what} (variant {checklist.variant}, revision {checklist.revision}): {weights}")
    typer.echo(f"{revised.rescored} rewards computed again, {revised.changed} are others now")


def _reward(reward: "Reward | None") -> str:
    if reward is None:
        return "none"
    return f"excluded ({reward.excluded_reason})" if reward.value is None else f"{reward.value:.3f}"


def _shortened(text: str, length: int = 60) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else words[: length - 1] + "…"
