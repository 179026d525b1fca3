"""`checkloop chat list, rename, rate, promote, remove, delete`: what the dashboard does with a chat, as it does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from store.configured import ConfigOption, open_configured
from store.ratings import Thumb

if TYPE_CHECKING:
    from store.database import Log

app = typer.Typer()
ChatArgument = Annotated[str, typer.Argument(help="Id of the chat, or how it begins.")]
NEWEST = 500
"""Chats among which the beginning of an id is looked for."""


@app.command("list")
def list_all(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    removed: Annotated[bool, typer.Option("--removed", help="Those that were taken off the list.")] = False,
    config: ConfigOption = None,
) -> None:
    """Chats, newest first."""
    from store.chats import list_chats

    chats = list_chats(open_configured(config), limit=limit, unlisted=removed)
    for one in chats:
        name = " ".join((one.title or one.opening or "nothing said yet").split())[:80]
        turns = f"{one.turns} turn{'s' if one.turns != 1 else ''}"
        typer.echo(f"{one.id}  {one.created_at:%Y-%m-%d %H:%M}  {turns:<9}  {one.version or 'no version'}  {name}")
    if not chats:
        typer.echo("no chat was taken off the list" if removed else "no chat yet")


@app.command()
def rename(
    chat: ChatArgument,
    name: Annotated[str, typer.Argument(help="Empty: it is called after its first message again.")],
    config: ConfigOption = None,
) -> None:
    """Gives a chat a name."""
    from env_sim.chat_worlds import setup_of
    from store.chats import rename_chat
    from store.trajectories import get_trajectory

    log = open_configured(config)
    chat_id = _chosen(log, chat)
    rename_chat(log, chat_id, name, setup_of(get_trajectory(log, chat_id)))
    typer.echo(f"{chat_id} is called {' '.join(name.split())!r}" if name.strip() else f"{chat_id} has no name")


@app.command()
def rate(
    chat: ChatArgument,
    turn: Annotated[int, typer.Argument(help="Index of the turn, from 0.", min=0)],
    thumb: Annotated[Thumb, typer.Argument(help="none takes the rating back.")],
    comment: Annotated[
        str | None, typer.Option(help="Why, in a sentence; default: what the person said before.")
    ] = None,
    person: Annotated[str, typer.Option(help="Who rates; default: the user of this machine.")] = "",
    config: ConfigOption = None,
) -> None:
    """Says what a turn was worth: a thumb up or down, with a comment."""
    from store.access import machine_user
    from store.ratings import THUMB_VALUES, rate_turn

    log = open_configured(config)
    chat_id = _chosen(log, chat)
    rate_turn(log, chat_id, turn, THUMB_VALUES[thumb], comment=comment, person=person.strip() or machine_user())
    said = "has no rating any more" if thumb is Thumb.NONE else f"is rated {thumb}"
    typer.echo(f"turn {turn} of {chat_id} {said}")


@app.command()
def promote(
    chat: ChatArgument,
    tools: Annotated[
        Path | None, typer.Option(help="The tools it had (JSON, OpenAI's form), where the log does not know them.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Makes a chat a scenario: its tool responses are the recordings. No model is asked; `checkloop annotate` has its
    checklists written."""
    from env_sim.chat_worlds import promote_chat, read_tools

    log = open_configured(config)
    chat_id = _chosen(log, chat)
    made = promote_chat(log, chat_id, read_tools(tools) if tools is not None else None)
    typer.echo(f"{chat_id} is scenario {made.name!r} ({made.hash[:12]}), split {made.split.value}")


@app.command()
def remove(
    chat: ChatArgument,
    back: Annotated[bool, typer.Option("--back", help="Put it back on the list.")] = False,
    config: ConfigOption = None,
) -> None:
    """Takes a chat off the list; what was said stays in the log."""
    from store.chats import unlist_chat

    log = open_configured(config)
    chat_id = _chosen(log, chat)
    unlist_chat(log, chat_id, back=back)
    typer.echo(f"{chat_id} is {'on the list again' if back else 'off the list; its log stays'}")


@app.command()
def delete(
    chat: Annotated[str, typer.Argument(help="Id of the chat, whole.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Deletes a chat with its log: what was said, tokens, verdicts, ratings. Nobody may be talking in it."""
    from store.chats import delete_chat

    log = open_configured(config)
    if not yes:
        typer.confirm(f"delete {chat} with all that the log holds about it, for good?", abort=True)
    delete_chat(log, chat)
    typer.echo(f"{chat} and its log are deleted")


def _chosen(log: "Log", beginning: str) -> str:
    """Raises LogError where several chats begin so."""
    from store.chats import list_chats
    from store.database import LogError

    chats = [*list_chats(log, limit=NEWEST), *list_chats(log, limit=NEWEST, unlisted=True)]
    matches = [one.id for one in chats if one.id.startswith(beginning)]
    if len(matches) > 1 and beginning not in matches:
        raise LogError(f"{len(matches)} chats begin with {beginning!r}: {', '.join(matches[:5])}")
    return beginning if beginning in matches or not matches else matches[0]
