"""Chats with people: what each runs with, the list of them, renaming and deleting one, its steps without their tokens.

Reads and writes the trajectory table; reads step and tool_response. Deleting also empties what LangGraph's checkpointer
keeps of the chat in tables of its own beside ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import column as sql_column
from sqlalchemy import delete, func, inspect, or_, select, table, update

from store.changes import Change, note_change
from store.database import Log, LogError
from store.schema import RunTrajectoryRow, StepRow, ToolResponseRow, TrajectoryRow, TurnRow, now
from store.trajectories import NewTrajectory, create_trajectories, delete_with_all_that_hangs_on
from store.turns import message_text
from store.vocabulary import ChatTools, Origin

CHECKPOINT_TABLES = ("checkpoints", "writes", "checkpoint_blobs", "checkpoint_writes")
"""LangGraph's, as its savers for SQLite and PostgreSQL name them; `thread_id` is the chat's id."""

ENDED = frozenset({"stop", "length", "tool_calls"})
"""How a message ends that the policy was let finish; any other finish reason is that of a message cut off by others."""
WHOLE = ENDED - {"length"}
"""How one ends whose calls are whole, so that they can be made."""

LONGEST_TITLE = 120


@dataclass(frozen=True)
class ChatSetup:
    """What a chat runs with; fixed when it starts, so that it can go on after any restart."""

    tools: ChatTools
    domain: str | None = None
    """The bundled domain whose tools the agent has; None with real tools."""
    ask_first: tuple[str, ...] = ()
    """Tools that only run once a person has agreed to the call."""

    def as_dict(self) -> dict[str, Any]:
        return {"tools": self.tools.value, "domain": self.domain, "ask_first": list(self.ask_first)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ChatSetup":
        """Raises LogError for a setup of a newer checkloop."""
        try:
            tools = ChatTools(stored["tools"])
            return cls(tools, stored.get("domain"), tuple(stored.get("ask_first") or ()))
        except (KeyError, ValueError) as error:
            raise LogError(f"this checkloop does not know how a chat runs with {dict(stored)!r}") from error


@dataclass(frozen=True)
class ChatListing:
    """One line of the list of chats."""

    id: str
    title: str | None
    opening: str
    """The first user message; empty if nothing was said yet."""
    chat: dict[str, Any] | None
    version: str | None
    turns: int
    created_at: datetime


@dataclass(frozen=True)
class ChatStep:
    """A recorded step as a chat goes on from it: messages, no tokens."""

    id: int
    parent_id: int | None
    version: str
    new_messages: list[dict[str, Any]]
    message: dict[str, Any]
    finish_reason: str | None
    cut_off: bool
    """The answer was stopped, or its request failed, before the policy had ended it."""


@dataclass(frozen=True)
class ChatAnswer:
    """What a tool said to a call."""

    response: str
    is_error: bool


def create_chat(
    log: Log, chat_id: str, setup: ChatSetup | None, *, version: str | None, seed: int | None, title: str | None = None
) -> None:
    """Announces a chat, before anything is said in it."""
    chat = setup.as_dict() if setup else None
    new = NewTrajectory(chat_id, Origin.CHAT, version=version, seed=seed, chat=chat, title=title)
    create_trajectories(log, [new])


def list_chats(log: Log, *, limit: int, offset: int = 0, unlisted: bool = False) -> list[ChatListing]:
    """The chats that people started here, newest first; `unlisted`: those that were taken off the list instead.
    Sessions of other clients are trajectories like any other."""
    row = TrajectoryRow
    columns = (row.id, row.title, row.chat, row.version, row.created_at)
    is_listed = row.unlisted_at.is_not(None) if unlisted else row.unlisted_at.is_(None)
    query = (
        select(*columns)
        .where(row.origin == Origin.CHAT.value, or_(row.chat.is_not(None), row.title.is_not(None)), is_listed)
        .order_by(row.created_at.desc(), row.id.desc())
        .limit(limit)
        .offset(offset)
    )
    with log.lookup() as connection:
        rows = connection.execute(query).all()
        ids = [row.id for row in rows]
        counts = select(TurnRow.trajectory_id, func.count()).where(TurnRow.trajectory_id.in_(ids))
        turns = {row[0]: row[1] for row in connection.execute(counts.group_by(TurnRow.trajectory_id))}
        step = StepRow
        first = select(step.trajectory_id, step.new_messages).where(
            step.trajectory_id.in_(ids), step.turn_index == 0, step.index == 0
        )
        openings: dict[str, str] = {}
        for chat_id, messages in connection.execute(first.order_by(step.id)):  # the newest, if it was said anew
            said = [message_text(message.get("content")) for message in messages if message.get("role") == "user"]
            openings[chat_id] = said[-1] if said else openings.get(chat_id, "")
    return [
        ChatListing(
            id=row.id,
            title=row.title,
            opening=openings.get(row.id, ""),
            chat=row.chat,
            version=row.version,
            turns=turns.get(row.id, 0),
            created_at=row.created_at,
        )
        for row in rows
    ]


def rename_chat(log: Log, chat_id: str, title: str, setup: ChatSetup | None = None) -> None:
    """An empty title takes the name back. Raises LogError for an unknown chat.

    `setup` is kept with a chat that has none yet: in older logs the title of a chat names its domain.
    """
    name = " ".join(title.split())[:LONGEST_TITLE] or None
    chats = update(TrajectoryRow.__table__).where(
        TrajectoryRow.id == chat_id, TrajectoryRow.origin == Origin.CHAT.value
    )
    with log.writing() as connection:
        if not connection.execute(chats.values(title=name)).rowcount:
            raise LogError(f"there is no chat {chat_id!r} in the log")
        if setup is not None:
            connection.execute(chats.where(TrajectoryRow.chat.is_(None)).values(chat=setup.as_dict()))


def unlist_chat(log: Log, chat_id: str, *, back: bool = False) -> None:
    """Takes a chat off the list of chats, or puts it back; what was said, its verdicts and ratings stay in the log, and
    its link opens it. Raises LogError for an unknown chat."""
    chats = update(TrajectoryRow.__table__).where(
        TrajectoryRow.id == chat_id, TrajectoryRow.origin == Origin.CHAT.value
    )
    with log.writing() as connection:
        if not connection.execute(chats.values(unlisted_at=None if back else now())).rowcount:
            raise LogError(f"there is no chat {chat_id!r} in the log")


def is_listed(log: Log, chat_id: str) -> bool:
    """Whether it was not taken off the list of chats."""
    query = select(TrajectoryRow.unlisted_at).where(TrajectoryRow.id == chat_id)
    with log.lookup() as connection:
        return connection.scalar(query) is None


def delete_chat(log: Log, chat_id: str) -> None:
    """Removes a chat and all that hangs on it, checkpoints included, in one transaction.

    Raises LogError, with nothing removed, for anything but a chat, and for one that a training run used: what a version
    was trained on stays in the log.
    """
    kept = inspect(log.engine).get_table_names()
    with log.writing() as connection:
        origin = connection.scalar(select(TrajectoryRow.origin).where(TrajectoryRow.id == chat_id))
        if origin is None:
            raise LogError(f"there is no chat {chat_id!r} in the log")
        if origin != Origin.CHAT.value:
            raise LogError(f"{chat_id!r} is no chat but a trajectory of origin {origin!r}: only chats can be deleted")
        runs = select(RunTrajectoryRow.run_id).where(RunTrajectoryRow.trajectory_id == chat_id)
        if used := sorted(connection.scalars(runs)):
            which = ", ".join(f"run {run}" for run in used)
            raise LogError(f"chat {chat_id!r} was trained on ({which}): what a version learned from stays in the log")
        delete_with_all_that_hangs_on(connection, [chat_id])
        for name in CHECKPOINT_TABLES:
            if name in kept:
                connection.execute(delete(table(name)).where(sql_column("thread_id") == chat_id))
        note_change(connection, Change.DELETED)


def chat_steps(log: Log, chat_id: str) -> list[ChatStep]:
    """The steps of a chat in the order in which they were recorded, parents before children."""
    row = StepRow
    columns = (row.id, row.parent_id, row.version, row.new_messages, row.message, row.finish_reason)
    query = select(*columns).where(row.trajectory_id == chat_id).order_by(row.id)
    with log.lookup() as connection:
        return [
            ChatStep(
                id=step.id,
                parent_id=step.parent_id,
                version=step.version,
                new_messages=step.new_messages,
                message=step.message,
                finish_reason=step.finish_reason,
                cut_off=step.finish_reason not in ENDED,
            )
            for step in connection.execute(query)
        ]


def chat_answers(log: Log, chat_id: str) -> dict[str, ChatAnswer]:
    """Call id -> what its tool answered, for the calls that were answered."""
    row = ToolResponseRow
    query = select(row.call_id, row.response, row.is_error).where(row.trajectory_id == chat_id)
    with log.lookup() as connection:
        return {call_id: ChatAnswer(text, failed) for call_id, text, failed in connection.execute(query)}
