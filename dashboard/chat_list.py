"""The chats beside the open one: the list, and the open chat's name, setup and end."""

from datetime import UTC, datetime

import streamlit as st

from dashboard.boundary import may
from dashboard.chat_actions import delete, leave, rename, unlist
from dashboard.chat_start import LABELS
from dashboard.chats import title_of
from dashboard.format import ago, plural
from dashboard.links import CHAT, TRAJECTORIES, address
from dashboard.text import chip, escape, link, show, soft
from env_sim.worlds import WORLDS
from store.chats import ChatListing, ChatSetup, list_chats
from store.database import Log
from store.trajectories import TrajectorySummary
from store.vocabulary import AccessRole

LISTED = 12
SHORT = 60
OFF = "unlisted"


def show_list(log: Log, open_id: str | None) -> None:
    """The newest chats, or those that were taken off the list; more of them on request."""
    if may(AccessRole.REVIEWER):
        st.button("New chat", icon=":material/add:", on_click=leave, disabled=open_id is None, width="stretch")
    wanted = int(st.session_state.get("chats-listed", LISTED))
    off = bool(st.session_state.get(OFF))
    chats = list_chats(log, limit=wanted + 1, unlisted=off)
    now = datetime.now(UTC)
    lines = [_line(listing, listing.id == open_id, now) for listing in chats[:wanted]]
    if lines:
        show(
            f'<div class="cl-label">{"Off the list" if off else "Chats"}</div>',
            f'<div class="cl-chats">{"".join(lines)}</div>',
        )
    if len(chats) > wanted:
        st.button("Older chats", type="tertiary", on_click=_list_more, args=(wanted,), key="older-chats")
    st.toggle("Chats off the list", key=OFF, bind="query-params")


def _list_more(shown: int) -> None:
    st.session_state["chats-listed"] = shown + 2 * LISTED


def _line(listing: ChatListing, is_open: bool, now: datetime) -> str:
    name = listing.title if listing.chat is not None or listing.title not in WORLDS else None
    title = _short(name or listing.opening or "New chat")
    shown = f"<b>{escape(title)}</b>" if is_open else link(title, address(CHAT, session=listing.id))
    note = soft(f"{ago(listing.created_at, now)} · {plural(listing.turns, 'turn')} · {listing.version or 'no version'}")
    return f'<div class="cl-recent{" cl-open" if is_open else ""}">{shown}<br>{note}</div>'


def show_head(summary: TrajectorySummary, setup: ChatSetup | None, opening: str, listed: bool) -> None:
    """Name and setup of the open chat, with what can be done to it as a whole."""
    name = title_of(summary)
    tags = []
    if setup is not None:
        tags.append(chip(LABELS[setup.tools]))
        if setup.domain:
            tags.append(chip(WORLDS[setup.domain].title))
        if setup.ask_first:
            tags.append(chip(f"asks before {', '.join(setup.ask_first)}"))
    tags.append(link("all its verdicts", address(TRAJECTORIES, trajectory=summary.id)))
    with st.container(horizontal=True, vertical_alignment="center", key="chat-head"):
        show(
            f'<div class="cl-title">{escape(_short(name or opening or "New chat", 2 * SHORT))}</div>'
            f'<div class="cl-row">{"".join(tags)}</div>'
        )
        if may(AccessRole.REVIEWER):
            show_menu(summary, name, opening, listed)


def show_menu(summary: TrajectorySummary, name: str | None, opening: str, listed: bool) -> None:
    with st.popover("", icon=":material/more_horiz:", help="Rename or delete this chat", type="tertiary"):
        key = f"title-{summary.id}"
        st.text_input("Name", value=name or "", key=key, placeholder=_short(opening) or "no name", max_chars=120)
        st.button("Rename", key="rename", on_click=rename, args=(summary.id, key))
        st.button(
            "Take off the list" if listed else "Put back on the list",
            icon=":material/visibility_off:" if listed else ":material/visibility:",
            key="unlist",
            on_click=unlist,
            args=(summary.id, not listed),
            help="What was said stays in the log, with its verdicts and ratings.",
        )
        if may(AccessRole.OPERATOR):
            st.divider()
            show(
                soft("Deletes what was said, its tokens, verdicts and ratings from the log. This cannot be taken back.")
            )
            sure = st.checkbox("Delete this chat with its log", key=f"sure-{summary.id}")
            st.button(
                "Delete for good",
                icon=":material/delete:",
                key="delete",
                disabled=not sure,
                on_click=delete,
                args=(summary.id,),
            )


def _short(text: str, length: int = SHORT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
