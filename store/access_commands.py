"""`checkloop people`: who may sign in to the dashboard, and what they may do there."""

from typing import Annotated

import typer

from store.configured import ConfigOption, open_configured
from store.vocabulary import AccessRole

app = typer.Typer(help="People of the dashboard and their roles.", no_args_is_help=True)
Person = Annotated[str, typer.Argument(help="The e-mail address, or the name that the dashboard shows who is refused.")]
Role = Annotated[AccessRole, typer.Argument(help="viewer sees, reviewer also judges and chats, operator does all.")]


@app.command()
def add(person: Person, role: Role = AccessRole.VIEWER, config: ConfigOption = None) -> None:
    """Lets somebody in who signs in."""
    from store.access import add_person, machine_user

    added = add_person(open_configured(config), person, role, given_by=machine_user())
    typer.echo(f"{added.person} is {added.role}")


@app.command()
def role(person: Person, role: Role, config: ConfigOption = None) -> None:
    """Gives somebody another role."""
    from store.access import change_role, machine_user

    changed = change_role(open_configured(config), person, role, given_by=machine_user())
    typer.echo(f"{changed.person} is {changed.role}")


@app.command()
def remove(person: Person, config: ConfigOption = None) -> None:
    """Takes somebody's role away: they are refused from now on."""
    from store.access import machine_user, remove_person

    remove_person(open_configured(config), person, given_by=machine_user())
    typer.echo(f"{person.strip()} has no role any more")


@app.command(name="list")
def list_all(config: ConfigOption = None) -> None:
    """Everybody who has a role."""
    from store.access import list_people

    people = list_people(open_configured(config))
    if not people:
        typer.echo("nobody has a role: `checkloop people add ada@example.org operator`")
    for one in people:
        typer.echo(f"{one.person}  {one.role}  since {one.since:%Y-%m-%d %H:%M} UTC, given by {one.given_by}")
