"""Chat: talk to the served agent with the simulated tools of a bundled domain; what is said is in the log.

Reads the chats of the log and says new turns through the gateway; the open chat stands in the address (`?session=ID`).
"""

import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.boundary import run_page
from dashboard.chats import ChatFailed, domain_of, new_seed, scenario_of, start_session
from dashboard.dialogue import step_html
from dashboard.format import ago
from dashboard.gateway_status import GatewayState, ask_gateway
from dashboard.links import CHAT, TRAJECTORIES, address, parameters
from dashboard.text import chip, escape, link, prose, show, soft
from env_sim.worlds import WORLDS
from store.browsing import TrajectoryFilter, page_of_trajectories, sampled_arguments, step_figures
from store.database import Log
from store.records import Scenario, TurnRecord
from store.settings import Settings
from store.trajectories import get_trajectory
from store.turns import get_turns
from store.versions import live_version
from store.vocabulary import Origin

if TYPE_CHECKING:
    from dashboard.conversation import Conversation

REDRAW_S = 0.05  # a picture of the reply for every token would cost more than the tokens
RECENT = 12


def show_chat(log: Log, settings: Settings) -> None:
    session_id = st.query_params.get("session")
    main, side = st.columns([7, 2], gap="large")
    with side:
        show_recent(log, session_id)
    with main:
        state = ask_gateway(settings.gateway_url)
        scenario = show_session(log, session_id) if session_id else choose_domain(state == GatewayState.READY)
        ready = show_gateway_state(state, settings)
    can_say = ready and scenario is not None
    placeholder = "Message the agent" if can_say else "The agent cannot be reached"
    text = st.chat_input(placeholder, key="say", submit_mode="stop", disabled=not can_say)
    text = text or st.session_state.pop("suggested", None)
    if text and scenario is not None:
        with main:
            say(log, settings, session_id, scenario, str(text))


def show_gateway_state(state: GatewayState, settings: Settings) -> bool:
    """Says what to do where the gateway is not ready; returns whether it is."""
    if state == GatewayState.READY:
        return True
    if state == GatewayState.STARTING:
        st.warning("The gateway is up, but the model server behind it is not ready. Reload in a moment.", icon="⏳")
        return False
    st.info("The gateway is not running, so nobody can answer. Start it in another terminal:", icon=":material/power:")
    st.code("checkloop up", language=None)
    show(soft(f"expected at {settings.gateway_url}"))
    return False


def leave_session() -> None:
    st.query_params.pop("session", None)


def show_recent(log: Log, session_id: str | None) -> None:
    st.button("New chat", icon=":material/add:", on_click=leave_session, disabled=session_id is None)
    now = datetime.now(UTC)
    chats = page_of_trajectories(log, TrajectoryFilter(origin=Origin.CHAT.value), limit=RECENT, offset=0)
    parts = ['<div class="cl-label">Recent chats</div>'] if chats else []
    for listing in chats:
        opening = listing.opening if len(listing.opening) <= 60 else listing.opening[:59] + "…"
        title = opening or listing.id
        shown = (
            f"<b>{escape(title)}</b>" if listing.id == session_id else link(title, address(CHAT, session=listing.id))
        )
        note = soft(f"{ago(listing.created_at, now)} · {listing.version or 'no version'}")
        parts.append(f'<div class="cl-recent">{shown}<br>{note}</div>')
    if parts:
        show(*parts)


def choose_domain(ready: bool) -> Scenario:
    """The start of a new chat: which simulated tools the agent has, and what one could ask it."""
    names = sorted(WORLDS)
    domain = st.selectbox(
        "Domain of the simulated tools",
        names,
        key="tools",
        bind="query-params",
        width=320,
    )
    seed = st.session_state.setdefault("chat-seed", new_seed())
    scenario = scenario_of(domain, seed)
    chips = "".join(chip(tool.name) for tool in scenario.tools)
    show(f'<div class="cl-row">{chips}</div>')
    show(
        '<div class="cl-label">For example</div>',
        *(f'<div class="cl-block">{prose(t.user)}</div>' for t in scenario.turns[:2]),
    )
    if st.button("Ask the first one", icon=":material/play_arrow:", key="suggest", disabled=not ready):
        st.session_state["suggested"] = scenario.turns[0].user
    return scenario


def show_session(log: Log, session_id: str) -> Scenario | None:
    """The dialogue so far, from the log; returns what to go on with, None if this page cannot."""
    summary = get_trajectory(log, session_id)
    domain = domain_of(summary)
    show_dialogue(log, session_id, get_turns(log, session_id))
    st.page_link(
        TRAJECTORIES.target,
        label="Open in Trajectories",
        icon=":material/open_in_new:",
        query_params=parameters(trajectory=session_id),
    )
    if domain is None or summary.seed is None:
        show(soft("This chat was started elsewhere, with tools that the dashboard does not have: it can be read here."))
        return None
    return scenario_of(domain, summary.seed)


def show_dialogue(log: Log, session_id: str, turns: list[TurnRecord]) -> None:
    figures = step_figures(log, session_id)
    sampled = sampled_arguments(log, session_id)
    for turn in turns:
        with st.chat_message("user", avatar=":material/person:"):
            show(prose(turn.user))
        with st.chat_message("assistant", avatar=":material/smart_toy:"):
            show(*(step_html(step, figures.get((turn.index, step.index)), sampled) for step in turn.steps))
            if not turn.complete:
                show(soft("This turn ended without a reply."))


def say(log: Log, settings: Settings, session_id: str | None, scenario: Scenario, text: str) -> None:
    """One user turn, drawn as it is sampled; afterwards the page shows it from the log."""
    with st.spinner("Opening the conversation", show_time=False):
        from dashboard.conversation import ReplyInProgress  # loads LangGraph: seconds, which only a chat needs

    if session_id is None:
        live = live_version(log)
        session_id = start_session(log, scenario.domain, st.session_state.pop("chat-seed"), live.name if live else None)
        st.query_params["session"] = session_id
    with st.chat_message("user", avatar=":material/person:"):
        show(prose(text))
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        place = st.empty()
        progress = ReplyInProgress()
        drawn = 0.0
        place.html(progress.html())
        conversation = open_conversation(log, settings.gateway_url, session_id, scenario)
        try:
            with closing(conversation.say(text)) as events:
                for event in events:
                    progress.add(event)
                    if time.monotonic() - drawn >= REDRAW_S:
                        place.html(progress.html())
                        drawn = time.monotonic()
        except ChatFailed as failure:
            place.html(progress.html())
            st.error("The turn could not be finished; it can be said again.", icon=":material/error:")
            st.code(str(failure), language=None, wrap_lines=True)
            return
        finally:
            st.session_state["conversation-steps"] = step_count(log, session_id)
    st.rerun()


def open_conversation(log: Log, gateway_url: str, session_id: str, scenario: Scenario) -> "Conversation":
    """The open conversation of this browser session; opened from the log if it is another one, or went on elsewhere."""
    from dashboard.conversation import Conversation

    kept: Any = st.session_state.get("conversation")
    if isinstance(kept, Conversation):
        if kept.id == session_id and st.session_state.get("conversation-steps") == step_count(log, session_id):
            return kept
        kept.close()
        del st.session_state["conversation"]
    conversation = Conversation(log, gateway_url, session_id, scenario)
    st.session_state["conversation"] = conversation
    return conversation


def step_count(log: Log, session_id: str) -> int:
    return len(step_figures(log, session_id))


run_page(CHAT.title, show_chat)
