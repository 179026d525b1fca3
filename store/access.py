"""Who may do what in the dashboard: people and their roles, appended to `role_change`, the newest row counting."""

import getpass
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, text

from store.database import Log, LogError
from store.schema import RoleChangeRow
from store.vocabulary import AccessRole

LONGEST_NAME = 128


def machine_user() -> str:
    """Who uses this machine, as changes and ratings name them where nobody signs in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


@dataclass(frozen=True)
class PersonAccess:
    person: str
    role: AccessRole
    given_by: str
    since: datetime


def role_of(log: Log, person: str) -> AccessRole | None:
    """None: somebody whom nobody has added, or who was removed."""
    query = select(RoleChangeRow.role).where(RoleChangeRow.person == person).order_by(RoleChangeRow.id.desc()).limit(1)
    with log.lookup() as connection:
        role = connection.scalar(query)
    return None if role is None else AccessRole(role)


def list_people(log: Log) -> list[PersonAccess]:
    """Everybody who has a role, by name."""
    with log.lookup() as connection:
        return _people(connection)


def add_person(log: Log, person: str, role: AccessRole, *, given_by: str) -> PersonAccess:
    """Gives somebody a first role. Raises LogError if they have one, or the name cannot be one."""
    name = known_as(person)
    with log.writing() as connection:
        _lock(connection)
        before = _find(_people(connection), name)
        if before is not None:
            raise LogError(f"{name!r} is {before.role} already: `checkloop people role {name} {role}` changes that")
        return _append(connection, name, role, given_by)


def change_role(log: Log, person: str, role: AccessRole, *, given_by: str) -> PersonAccess:
    """Gives somebody another role. Raises LogError for somebody unknown, and for the last operator."""
    name = known_as(person)
    with log.writing() as connection:
        _lock(connection)
        before = _found(connection, name)
        if before.role is role:
            return before
        _keep_an_operator(connection, before)
        return _append(connection, name, role, given_by)


def remove_person(log: Log, person: str, *, given_by: str) -> None:
    """Takes somebody's role away. Raises LogError for somebody unknown, and for the last operator."""
    name = known_as(person)
    with log.writing() as connection:
        _lock(connection)
        _keep_an_operator(connection, _found(connection, name))
        row = {"person": name, "role": None, "given_by": given_by}
        connection.execute(insert(RoleChangeRow.__table__), row)


def known_as(person: str) -> str:
    """The one spelling of a name: an e-mail address in small letters, a subject as its provider writes it.

    Raises LogError for a name that nobody can sign in with.
    """
    name = person.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or any(letter.isspace() for letter in name):
        raise LogError(
            f"{person[: LONGEST_NAME + 1]!r} is no name to sign in with: give an e-mail address, or the name that the "
            f"dashboard shows to who is refused, of at most {LONGEST_NAME} characters"
        )
    return name if name.startswith("sub:") else name.lower()


def _people(connection: Connection) -> list[PersonAccess]:
    newest = select(func.max(RoleChangeRow.id)).group_by(RoleChangeRow.person)
    query = (
        select(RoleChangeRow.person, RoleChangeRow.role, RoleChangeRow.given_by, RoleChangeRow.created_at)
        .where(RoleChangeRow.id.in_(newest), RoleChangeRow.role.is_not(None))
        .order_by(RoleChangeRow.person)
    )
    return [
        PersonAccess(person, AccessRole(role), given_by, since)
        for person, role, given_by, since in connection.execute(query)
        if role is not None
    ]


def _find(people: list[PersonAccess], name: str) -> PersonAccess | None:
    return next((one for one in people if one.person == name), None)


def _found(connection: Connection, name: str) -> PersonAccess:
    found = _find(_people(connection), name)
    if found is None:
        raise LogError(f"nobody is known as {name!r}: `checkloop people list` shows who is")
    return found


def _keep_an_operator(connection: Connection, leaving: PersonAccess) -> None:
    operators = [one.person for one in _people(connection) if one.role is AccessRole.OPERATOR]
    if operators == [leaving.person]:
        raise LogError(f"{leaving.person!r} is the last operator: make another one first")


def _append(connection: Connection, name: str, role: AccessRole, given_by: str) -> PersonAccess:
    values = {"person": name, "role": role.value, "given_by": given_by}
    row = connection.execute(
        insert(RoleChangeRow.__table__).values(values).returning(RoleChangeRow.__table__.c.created_at)
    ).one()
    return PersonAccess(name, role, given_by, row.created_at)


def _lock(connection: Connection) -> None:
    """One change of roles at a time. SQLite's writing transaction holds the write lock anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE role_change IN SHARE ROW EXCLUSIVE MODE"))
