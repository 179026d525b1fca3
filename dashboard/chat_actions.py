"""What a person does on the chat page, as callbacks of its widgets: they run before the page is drawn anew.

Each opens the log of the settings, does one thing, and leaves what went wrong in the session for the page to say.
"""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec

import streamlit as st

from dashboard.boundary import connect
from dashboard.chat_turns import Part
from dashboard.chats import new_chat_id, setup_of, who
from dashboard.live_chats import ChatFailed, TurnState, live_chats
from store.chats import ChatSetup, create_chat, delete_chat, rename_chat
from store.database import Log, LogError
from store.ratings import rate_turn, ratings_of
from store.settings import Settings, SettingsError, load_settings
from store.trajectories import get_trajectory
from store.turns import get_turns
from store.versions import live_version

PROBLEM = "chat-problem"
"""Key of what went wrong in the last action."""
SEED = "chat-seed"
"""Key of the seed of the chat that would start now."""

P = ParamSpec("P")


def action(body: Callable[Concatenate[Log, Settings, P], None]) -> Callable[P, None]:
    """`body` as a callback: given the log and the settings; what it raises becomes the page's message."""

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            settings = load_settings()
            body(connect(settings), settings, *args, **kwargs)
        except (ChatFailed, LogError, SettingsError) as error:
            st.session_state[PROBLEM] = str(error)

    return run


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
    if chat_id is None:
        chat_id = new_chat_id()
        live = live_version(log)
        seed = int(st.session_state.pop(SEED))
        create_chat(log, chat_id, setup, version=live.name if live else None, seed=seed)
        st.query_params["session"] = chat_id
    live_chats().say(log, settings, chat_id, text, len(get_turns(log, chat_id)))


@action
def say_instead(log: Log, settings: Settings, chat_id: str, turn: int, text: str | None, key: str = "") -> None:
    """Says a turn anew: `text`, or what stands in the widget `key`. A fork in the log, where both stay."""
    said = text if text is not None else str(st.session_state.get(key) or "").strip()
    if said:
        live_chats().say(log, settings, chat_id, said, turn, instead=True)


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
    before = ratings_of(log, [chat_id]).get((chat_id, turn))
    comment = before.comment if before and value else ""
    rate_turn(log, chat_id, turn, value, comment=comment, person=who())


@action
def comment(log: Log, settings: Settings, chat_id: str, turn: int, value: int, key: str) -> None:
    rate_turn(log, chat_id, turn, value, comment=str(st.session_state.get(key) or "").strip(), person=who())


@action
def rename(log: Log, settings: Settings, chat_id: str, key: str) -> None:
    rename_chat(log, chat_id, str(st.session_state.get(key) or ""), setup_of(get_trajectory(log, chat_id)))


@action
def delete(log: Log, settings: Settings, chat_id: str) -> None:
    running = live_chats().turn_of(chat_id)
    if running is not None and running.state is TurnState.RUNNING:
        raise ChatFailed("the agent is still answering in this chat: stop it first")
    delete_chat(log, chat_id)
    live_chats().forget(chat_id)
    leave()
    st.session_state["chat-note"] = "The chat and its log are deleted."


def leave() -> None:
    st.query_params.pop("session", None)
