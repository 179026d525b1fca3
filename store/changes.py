"""Counts the changes of the log that leave no new row behind, so that whoever keeps figures notices them (log_state).

On PostgreSQL whoever changes the same kind waits for the transaction before: note a change last in a transaction.
"""

from enum import StrEnum

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from store.schema import LogChangeRow


class Change(StrEnum):
    ENDED = "ended"
    """A trajectory ended."""
    LINKED = "linked"
    """A trajectory got its scenario."""
    DELETED = "deleted"
    """A trajectory was removed."""


def note_change(connection: Connection, kind: Change) -> None:
    table = LogChangeRow.__table__
    new = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
    added = new.on_conflict_do_update(index_elements=["kind"], set_={"times": table.c.times + 1})
    connection.execute(added, {"kind": kind.value, "times": 1})
