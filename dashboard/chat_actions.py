"""What a person does on the chat page, as callbacks of its widgets: they run before the page is drawn anew.

Each does one thing, and leaves what went wrong in the session for the page to say.
"""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard import boundary
from dashboard.chat_turns import Part
from dashboard.chats import new_chat_id, setup_of
from dashboard.live_chats import ChatFailed, TurnState, live_chats
from store.chats import ChatSetup, create_chat, delete_chat, rename_chat, unlist_chat
from store.database import Log
from store.ratings import rate_turn
from store.settings import Settings
from store.trajectories import get_trajectory
from store.turns import get_turns
from store.versions import live_version
from store.vocabulary import AccessRole, ChatTools

PROBLEM = "chat-problem"
"""Key of what went wrong in the last action."""
OUTSIDE = {ChatTools.REAL, ChatTools.MCP}
"""Tools that do something outside of this log."""
SEED = "seed"
"""Of the address: the seed of the chat that would start now."""

action = boundary.action(AccessRole.REVIEWER, PROBLEM, ChatFailed)
"""Makes a callback of a function that changes something; reviewers and operators."""


@action
def say_typed(log: Log, settings: Settings, chat_id: str | None, setup: ChatSetup | None, key: str) -> None:
    """Says what stands in the widget `key`; without a chat, in a new one of this setup."""
    text = str(st.session_state.get(key) or "").strip()
    if text:
        _say(log, settings, chat_id, setup, text)


@action
def say_text(log: Log, settings: Settings, setup: ChatSetup, text: str) -> None:
    """Begins a chat with `text`."""
    _say(log, settings, None, setup, text)


def _say(log: Log, settings: Settings, chat_id: str | None, setup: ChatSetup | None, text: str) -> None:
    _require_for(log, chat_id, setup)
    if chat_id is None:
        chat_id = new_chat_id()
        live = live_version(log)
        create_chat(log, chat_id, setup, version=live.name if live else None, seed=int(st.query_params[SEED]))
        forget_seed()
        st.query_params["session"] = chat_id
    live_chats().say(log, settings, chat_id, text, len(get_turns(log, chat_id)))


@action
def say_instead(log: Log, settings: Settings, chat_id: str, turn: int, text: str | None, key: str = "") -> None:
    """Says a turn anew: `text`, or what stands in the widget `key`. A fork in the log, where both stay."""
    said = text if text is not None else str(st.session_state.get(key) or "").strip()
    if said:
        _require_for(log, chat_id)
        live_chats().say(log, settings, chat_id, said, turn, instead=True)


def _require_for(log: Log, chat_id: str | None, setup: ChatSetup | None = None) -> None:
    """Tools that do what they say are for operators. Of a chat that is there the log says which it has."""
    if chat_id is not None:
        setup = setup_of(get_trajectory(log, chat_id))
    if setup is not None and setup.tools in OUTSIDE:
        boundary.require(AccessRole.OPERATOR)


@action
def stop(log: Log, settings: Settings, chat_id: str) -> None:
    running = live_chats().turn_of(chat_id)
    if running is not None:
        running.stop()
        running.wait(2.0)


@action
def decide(
    log: Log,
    settings: Settings,
    chat_id: str,
    turn: int,
    said: str,
    begun: Sequence[Part],
    waiting: Sequence[str],
    call_id: str,
    approved: bool,
    reason_key: str,
) -> None:
    """Decides on one of the calls that wait; with the last one the turn goes on."""
    from agent.approval import Decision

    _require_for(log, chat_id)
    decided: dict[str, Any] = st.session_state.setdefault(decisions_key(chat_id), {})
    decided[call_id] = Decision(approved, "" if approved else str(st.session_state.get(reason_key) or ""))
    if all(one in decided for one in waiting):
        of_turn = {one: decided[one] for one in waiting}
        st.session_state.pop(decisions_key(chat_id))
        live_chats().decide(log, settings, chat_id, of_turn, said, turn, begun)


def decisions_key(chat_id: str) -> str:
    return f"decided-{chat_id}"


@action
def rate(log: Log, settings: Settings, chat_id: str, turn: int, key: str) -> None:
    """Thumbs up or down; the same thumb again takes it back."""
    thumb = st.session_state.get(key)
    value = 0 if thumb is None else (1 if thumb == 1 else -1)
    rate_turn(log, chat_id, turn, value, person=boundary.looking().name)


@action
def comment(log: Log, settings: Settings, chat_id: str, turn: int, value: int, key: str) -> None:
    said = str(st.session_state.get(key) or "").strip()
    rate_turn(log, chat_id, turn, value, comment=said, person=boundary.looking().name)


@action
def rename(log: Log, settings: Settings, chat_id: str, key: str) -> None:
    rename_chat(log, chat_id, str(st.session_state.get(key) or ""), setup_of(get_trajectory(log, chat_id)))


@action
def unlist(log: Log, settings: Settings, chat_id: str, back: bool) -> None:
    """Off the list, or on it again; its log stays, and so does its link."""
    unlist_chat(log, chat_id, back=back)
    if not back:
        leave()
    st.session_state["chat-note"] = "The chat is on the list again." if back else "The chat is off the list."


@boundary.action(AccessRole.OPERATOR, PROBLEM, ChatFailed)
def delete(log: Log, settings: Settings, chat_id: str) -> None:
    running = live_chats().turn_of(chat_id)
    if running is not None and running.state is TurnState.RUNNING:
        raise ChatFailed("the agent is still answering in this chat: stop it first")
    delete_chat(log, chat_id)
    live_chats().forget(chat_id)
    leave()
    st.session_state["chat-note"] = "The chat and its log are deleted."


def forget_seed() -> None:
    """The next chat is another one."""
    st.query_params.pop(SEED, None)


def leave() -> None:
    st.query_params.pop("session", None)
