"""LangGraph's checkpointer on the log's own database, for chats: tables of its own beside ours.

What it adds to the log is the state between two requests: that a turn waits for a person, and where. What was said is
in the log, which stays the truth: a chat whose checkpoints are missing, or say something else, is put together from it
again (agent/chat.py). One checkpoint a chat is kept; LangGraph would keep one for every step, each with the whole
dialogue in it.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from store.database import LOCK_TIMEOUT_S, Log, LogError

SERDE = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Builds messages and plain values when it reads; never an object of a type that only the database names."""

_SETUP_LOCK = 0x63686B70  # "chkp": one process creates the tables on PostgreSQL at a time
_ready: set[str] = set()


@asynccontextmanager
async def open_checkpoints(log: Log) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """A saver over a connection of its own, for the event loop that runs. Creates its tables if needed.

    Raises LogError where the database is in the way.
    """
    with clear_errors(log):
        if log.engine.dialect.name == "sqlite":
            async with _sqlite(log) as saver:
                yield saver
        else:
            async with _postgresql(log) as saver:
                yield saver


@asynccontextmanager
async def _sqlite(log: Log) -> AsyncIterator[BaseCheckpointSaver[str]]:
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    # Waits for the log's writers as they wait for one another. Every statement is a transaction of its own: one that
    # stayed open until the event loop comes round to its commit would hold the log's write lock for as long, and with
    # it the gateway. (What a kill leaves half-written is made again from the log.)
    async with aiosqlite.connect(
        str(log.engine.url.database), timeout=LOCK_TIMEOUT_S, isolation_level=None
    ) as connection:
        await connection.execute("PRAGMA synchronous=NORMAL")
        saver = AsyncSqliteSaver(connection, serde=SERDE)
        await saver.setup()
        yield saver


@asynccontextmanager
async def _postgresql(log: Log) -> AsyncIterator[BaseCheckpointSaver[str]]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg import AsyncConnection
    from psycopg.rows import dict_row

    address = log.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    async with await AsyncConnection.connect(
        address, autocommit=True, prepare_threshold=0, row_factory=dict_row
    ) as connection:
        saver = AsyncPostgresSaver(connection, serde=SERDE)
        if address not in _ready:
            await connection.execute("SELECT pg_advisory_lock(%s)", (_SETUP_LOCK,))
            try:
                await saver.setup()
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_SETUP_LOCK,))
            _ready.add(address)
        yield saver


async def keep_newest(saver: BaseCheckpointSaver[str], chat_id: str) -> None:
    """Forgets all checkpoints of the chat but the newest one."""
    if hasattr(saver, "pipe"):  # PostgreSQL's saver, which can; SQLite's cannot yet
        await saver.aprune([chat_id])
        return
    connection: Any = saver.conn  # type: ignore[attr-defined]
    older = (
        "thread_id = ? AND checkpoint_id < (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ?)",
        (chat_id, chat_id),
    )
    for name in ("writes", "checkpoints"):
        await connection.execute(f"DELETE FROM {name} WHERE {older[0]}", older[1])


@contextmanager
def clear_errors(log: Log) -> Iterator[None]:
    """The drivers' errors as LogError."""
    try:
        yield
    except sqlite3.Error as error:
        raise LogError(f"the checkpoints in {_shown(log)} failed: {error}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] != "psycopg":  # not installed where the log is on SQLite
            raise
        raise LogError(f"the checkpoints in {_shown(log)} failed: {error}") from error


def _shown(log: Log) -> str:
    return log.engine.url.render_as_string(hide_password=True)
