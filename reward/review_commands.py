"""`checkloop judge open, next, agree, undo`: going through judged turns under a filter, as on the page Review."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured, printer
from store.vocabulary import Outcome, SampleReason

if TYPE_CHECKING:
    from reward.review import TurnToReview
    from store.review_queues import QueueFilter

app = typer.Typer()
PersonOption = Annotated[str, typer.Option(help="Who reviews.")]
WhyOption = Annotated[
    list[SampleReason] | None, typer.Option(help="Only turns put up for this reason; repeat it for one of several.")
]
DomainOption = Annotated[str | None, typer.Option(help="Only of this domain's scenarios.")]
KindOption = Annotated[str | None, typer.Option(help="Only turns with a judged item of this kind: a check's, or llm.")]
BatchOption = Annotated[str | None, typer.Option(help="Only turns of this batch.")]
VersionOption = Annotated[str | None, typer.Option(help="Only of this policy version.")]
ItemOption = Annotated[int | None, typer.Option(help="Only turns judged by the item with this number.")]
VerdictOption = Annotated[
    Outcome | None, typer.Option(case_sensitive=False, help="Only where a judge says so of an item.")
]
ThumbsOption = Annotated[bool, typer.Option("--thumbs-down", help="Only turns on which a person's thumb is down.")]


@app.command("open")
def open_turns(
    why: WhyOption = None,
    batch: BatchOption = None,
    version: VersionOption = None,
    domain: DomainOption = None,
    kind: KindOption = None,
    item: ItemOption = None,
    verdict: VerdictOption = None,
    thumbs_down: ThumbsOption = False,
    person: PersonOption = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    config: ConfigOption = None,
) -> None:
    """Judged turns that are open under a filter and that nobody but the person looks at, in the queue's order."""
    from rich.table import Table
    from rich.text import Text

    from store.review_queues import list_open

    wanted = _filter(why, batch, version, domain, kind, item, verdict, thumbs_down)
    turns = list_open(open_configured(config), wanted, person=person, at=datetime.now(UTC), limit=limit)
    if not turns:
        typer.echo(f"nothing is open (filter: {wanted.name})")
        return
    table = Table("trajectory", "turn", "user")
    for (name, index), user in turns:
        table.add_row(name, str(index), Text(" ".join(user.split())[:80]))
    printer().print(table)


@app.command("next")
def next_turn(
    person: PersonOption,
    why: WhyOption = None,
    batch: BatchOption = None,
    version: VersionOption = None,
    domain: DomainOption = None,
    kind: KindOption = None,
    item: ItemOption = None,
    verdict: VerdictOption = None,
    thumbs_down: ThumbsOption = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave the turn where the person stands open.")] = False,
    config: ConfigOption = None,
) -> None:
    """The turn where the person stands in the queue, or the next one, kept for them for three minutes."""
    from reward.review import read_turn, resume_turn, take_turn
    from store.review_claims import place_of

    wanted = _filter(why, batch, version, domain, kind, item, verdict, thumbs_down)
    log, now = open_configured(config), datetime.now(UTC)
    place = place_of(log, person, wanted.name) if skip else None
    if place is None:
        turn = resume_turn(log, wanted, person=person, at=now)
    else:
        turn = take_turn(log, wanted, person=person, at=now, after=place.turn)
    shown = read_turn(log, turn) if turn is not None else None
    if shown is None:
        typer.echo(f"nothing is open (filter: {wanted.name})")
        return
    _tell(shown)


@app.command()
def agree(
    trajectory: Annotated[str, typer.Argument(help="Id of the trajectory.")],
    turn: Annotated[int, typer.Argument(help="Index of the turn, from 0.", min=0)],
    person: PersonOption,
    reason: Annotated[str, typer.Option(help="Why, in a sentence.")] = "",
    why: WhyOption = None,
    batch: BatchOption = None,
    version: VersionOption = None,
    domain: DomainOption = None,
    kind: KindOption = None,
    item: ItemOption = None,
    verdict: VerdictOption = None,
    thumbs_down: ThumbsOption = False,
    config: ConfigOption = None,
) -> None:
    """Says of every open item of the turn what the judge said of it; under a filter, of those that it asks for."""
    from reward.review import agree as write
    from reward.review import hold_turn, read_turn
    from store.database import LogError

    wanted = _filter(why, batch, version, domain, kind, item, verdict, thumbs_down)
    log = open_configured(config)
    shown = read_turn(log, (trajectory, turn))
    if shown is None:
        raise LogError(f"trajectory {trajectory!r} did not reach a turn {turn}, or is not in the log")
    hold_turn(log, shown.key, person=person, at=datetime.now(UTC), queue=wanted.name)
    said = write(log, shown, person=person, reason=reason, wanted=wanted)
    for one in said:
        typer.echo(f"{one.verdict.item_key}: {one.verdict.outcome}, says {one.verdict.judge}")
    agreed = {one.verdict.item_key for one in said}
    left = [one.item.id for one in shown.open_items(wanted) if one.item.id not in agreed]
    if left:
        typer.echo(f"still open, for no judge could decide: {', '.join(left)}")


@app.command()
def undo(person: PersonOption, config: ConfigOption = None) -> None:
    """Takes back what the person said last: a verdict, those of one `agree`, or "this item is bad"; rewards are
    computed again."""
    from reward.review import undo as take_back

    undone = take_back(open_configured(config), person=person)
    if undone is None:
        typer.echo(f"nothing that {person} said stands: there is nothing to undo")
        return
    for one in undone.together:
        what = f"{one.item_key} is {one.outcome}" if one.outcome else f"{one.item_key} is bad"
        typer.echo(f"taken back: {what}, turn {one.turn_index} of {one.trajectory_id}")
    if undone.revised is not None and not undone.revised.checklists:
        typer.echo("the checklist stays as it is: it has the item again, or was written anew since")


def _filter(
    whys: list[SampleReason] | None,
    batch: str | None,
    version: str | None,
    domain: str | None,
    kind: str | None,
    item: int | None,
    verdict: Outcome | None,
    thumbs_down: bool,
) -> "QueueFilter":
    from store.review_queues import QueueFilter

    return QueueFilter(
        whys=tuple(whys or ()),
        batch=batch,
        version=version,
        domain=domain,
        kind=kind,
        item_id=item,
        outcome=verdict,
        thumbs_down=thumbs_down,
    )


def _tell(shown: "TurnToReview") -> None:
    name, index = shown.key
    typer.echo(f"turn {index} of {name}\nuser: {shown.turn.user}")
    for step in shown.turn.steps:
        for call in step.calls:
            typer.echo(
                f"  step {step.index}: {call.name} {dict(call.arguments) if call.arguments is not None else '?'}"
            )
            typer.echo(f"    answered: {call.response}")
        if step.content.strip():
            typer.echo(f"  step {step.index}: {step.content}")
    for one in shown.items:
        verdict = one.shown
        said = "no verdict" if verdict is None else f"{verdict.outcome} by {verdict.judge}: {verdict.reason}"
        typer.echo(f"{'open' if one.is_open else 'done'} {one.item.id}: {one.item.question}\n     {said}")
