"""Opens the log: engine, transactions and the schema's revision, the same for SQLite and PostgreSQL.

SQLite: several processes (gateway, rollouts, trainer, dashboard) write one file, so it runs in WAL mode, waits up to
30 s for a lock, and a writing transaction takes the write lock when it begins: a transaction that reads first and
upgrades its lock later cannot wait and fails at once with "database is locked".
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.orm import Session

from store.vocabulary import Durability

HEAD_REVISION = "0017"
"""Newest revision under store/migrations/versions: known without loading Alembic, so that opening is fast."""

LOCK_TIMEOUT_S = 30.0
NETWORK = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""How soon a connection to a PostgreSQL server that is not reached any more (a cable, a partition) fails, in libpq's
words: within half a minute, where TCP alone waits for a quarter of an hour. What the database URL says itself counts.
A statement that takes long is none of that: the server's TCP answers meanwhile."""
T = TypeVar("T")
AnyRow: TypeAlias = Row[*tuple[Any, ...]]
_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x636865636B  # "check": one process migrates a PostgreSQL log at a time


class LogError(RuntimeError):
    """The log refused: what, which value, and what to do."""


class NewerSchemaError(LogError):
    """The database was written by a newer checkloop."""


class Log:
    """An open log. Threads share it; a forked process opens its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        options: dict[str, Any] = {"checkloop_reading": True}
        if engine.dialect.name == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = engine.execution_options(**options)

    @property
    def url(self) -> str:
        """As given to `open_log`; may hold a password."""
        return self.engine.url.render_as_string(hide_password=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that may write: commits at the end, rolls back on any exception. Database errors: LogError.

        On SQLite it holds the write lock from its first statement on: keep it short, and read with `reading()`.
        """
        with _clear_errors(self), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads: never waits for a writer, sees one consistent state; a write is a LogError."""
        with _clear_errors(self), Session(self._reading, autoflush=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A bare connection in one writing transaction, for hot paths that build no ORM rows."""
        with _clear_errors(self), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def lookup(self) -> Iterator[Connection]:
        """A bare connection that only reads."""
        with _clear_errors(self), self._reading.connect() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_log(url: str, durability: Durability = Durability.PROCESS) -> Log:
    """Opens the log at a SQLAlchemy URL; creates it, or migrates it to this checkloop's schema, if needed.

    `durability` is of what this Log commits; other processes choose their own.

    Raises NewerSchemaError for a database of a newer checkloop, LogError for everything else that is in the way
    (not a database, a folder that cannot be written, no server, a database of something else).
    """
    parsed = _parse_url(url)
    make_engine = _sqlite_engine if parsed.get_backend_name() == "sqlite" else _postgresql_engine
    engine = make_engine(parsed, durability)
    log = Log(engine)
    try:
        with _clear_errors(log):
            _bring_to_head(engine)
    except BaseException:
        engine.dispose()
        raise
    return log


def insert_new(log: Log, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT for `table` that leaves rows alone whose key is already there (first writer wins)."""
    return _insert_new(log.engine.dialect.name, table)


@cache
def _insert_new(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


def in_chunks(values: Sequence[T], size: int = 500) -> Iterator[Sequence[T]]:
    """Slices of at most `size`: both databases bound how many values one IN may list."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _write_json(value: Any) -> str:
    try:
        # NaN is no JSON: PostgreSQL would refuse what SQLite takes.
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LogError(f"a value cannot be stored in the log as JSON: {error}") from error


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LogError(
            f"{url!r} is no database URL; use sqlite:///path/to/log.db or postgresql://user@host/database"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise LogError(f"the log runs on SQLite and PostgreSQL, not on {backend!r}: change database_url")
    if not parsed.database or parsed.database == ":memory:":
        raise LogError("the log is shared between processes and cannot live in memory: give sqlite:/// a file")
    return parsed


def _sqlite_engine(url: URL, durability: Durability) -> Engine:
    file = Path(str(url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogError(f"cannot create the log's folder {file.parent}: {error.strerror or error}") from error
    engine = create_engine(
        url,
        json_serializer=_write_json,
        connect_args={"timeout": LOCK_TIMEOUT_S},
        pool_size=16,
        max_overflow=64,
        pool_timeout=LOCK_TIMEOUT_S,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: Any) -> None:
        # The driver's own transaction control begins too late (at the first write) and not at all before DDL;
        # switched off here, `_begin` below begins every transaction itself (SQLAlchemy's documented recipe).
        connection.isolation_level = None
        # In WAL mode NORMAL leaves it to the operating system when a commit reaches the disk; FULL waits for it.
        synchronous = "FULL" if durability is Durability.POWER else "NORMAL"
        for pragma in (f"busy_timeout={int(LOCK_TIMEOUT_S * 1000)}", "foreign_keys=ON", f"synchronous={synchronous}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = bool(connection.get_execution_options().get("checkloop_reading"))
        if connection.info.get("query_only", False) != reading:
            connection.exec_driver_sql(f"PRAGMA query_only={int(reading)}")
            connection.info["query_only"] = reading
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(url: URL, durability: Durability) -> Engine:
    # Without a word the server's own setting counts, which waits for the disk unless somebody changed it.
    asked = f"{url.query.get('options', '')} -c synchronous_commit=on"
    waits = {"options": asked.strip()} if durability is Durability.POWER else {}
    given = {name: value for name, value in NETWORK.items() if name not in url.query}
    return create_engine(
        url,
        connect_args=given | waits,
        json_serializer=_write_json,
        pool_size=8,
        max_overflow=24,
        pool_timeout=LOCK_TIMEOUT_S,
        pool_pre_ping=True,
    )


def _bring_to_head(engine: Engine) -> None:
    with engine.execution_options(checkloop_reading=True).connect() as connection:
        if _revision(connection) == HEAD_REVISION:
            return
    if engine.dialect.name == "sqlite":
        _switch_to_wal(engine)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        # Asked again under the lock: another process may have migrated meanwhile.
        revision = _revision(connection)
        if revision == HEAD_REVISION:
            return
        if revision is None and (tables := inspect(connection).get_table_names()):
            raise LogError(
                f"the database at {_shown(engine)} is not a checkloop log (it has tables like {sorted(tables)[:3]}): "
                "give database_url an empty database or a new file"
            )
        _migrate(connection, revision)


def _revision(connection: Connection) -> str | None:
    """The stored revision; None for an empty database or one without Alembic's table."""
    if connection.dialect.name == "sqlite":
        there = connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")).first()
    else:
        there = connection.execute(text("SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL")).first()
    if there is None:
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: Connection, revision: str | None) -> None:
    """Upgrades to head inside the caller's transaction: a failed migration leaves the database as it was."""
    # Imported here: only a new log or an old one pays for loading Alembic.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise NewerSchemaError(
            f"the log at {_shown(connection.engine)} has schema revision {revision!r}, this checkloop knows up to "
            f"{HEAD_REVISION!r}: it was written by a newer checkloop. Upgrade checkloop, or use another database_url"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _switch_to_wal(engine: Engine) -> None:
    """Persistent in the file. SQLite does not wait for other connections here, so this does."""
    connection = engine.raw_connection()
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    try:
        while True:
            try:
                mode = connection.cursor().execute("PRAGMA journal_mode=WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise LogError(f"cannot switch the log at {_shown(engine)} to WAL mode: {error}") from error
                time.sleep(0.05)
            else:
                break
        if mode != "wal":
            raise LogError(f"the file system of {_shown(engine)} does not support SQLite's WAL mode: use a local disk")
    finally:
        connection.close()


@contextmanager
def _clear_errors(log: Log) -> Iterator[None]:
    """Turns SQLAlchemy's and the drivers' errors into LogError: what the database said, where, and what to do."""
    try:
        yield
    except OperationalError as error:
        said = " ".join(str(error.orig).split())
        raise LogError(f"the log at {_shown(log.engine)} failed: {said}{_advice(said)}") from error
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        raise LogError(f"the log at {_shown(log.engine)} refused: {said}{_advice(said)}") from error
    except StatementError as error:
        if isinstance(error.orig, LogError):
            raise error.orig from error
        raise LogError(f"a value cannot be stored in the log: {error.orig}") from error
    except SQLAlchemyError as error:
        raise LogError(f"the log at {_shown(log.engine)} failed: {error}") from error
    except sqlite3.Error as error:
        raise LogError(f"the log at {_shown(log.engine)} failed: {error}{_advice(str(error))}") from error


def _advice(said: str) -> str:
    for symptom, advice in {
        "full": "nothing of this transaction was written; free some space and try again",
        "no space left": "nothing of this transaction was written; free some space and try again",
        "not a database": "the file is something else or damaged; give database_url another file",
        "unable to open": "check that the folder exists and that this user may write there",
        "disk i/o": "nothing of this transaction was written; check the disk",
        "readonly": "check that this user may write the file and its folder",
        "locked": f"another process held the write lock for over {LOCK_TIMEOUT_S:.0f} s",
        "connection to server": "is the PostgreSQL server of database_url running?",
        "resolve host": "is the host of database_url spelt right?",
    }.items():
        if symptom in said.lower():
            return f" ({advice})"
    return ""


def _shown(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
