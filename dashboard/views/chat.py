"""Chat: talk to the served agent, with simulated or real tools; what is said is in the log.

Reads the chats of the log and the turns that are being said (`dashboard.live_chats`); what a person does is in
`dashboard.chat_actions`. The open chat stands in the address (`?session=ID`), so that it outlives reloads and restarts.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.boundary import may, run_page
from dashboard.chat_actions import OUTSIDE, PROBLEM, comment, decide, decisions_key, rate, say_instead, say_typed, stop
from dashboard.chat_list import show_head, show_list
from dashboard.chat_start import choose_setup
from dashboard.chat_turns import Called, cost_html, parts_of_events, parts_of_turn, rating_html, took, turn_html
from dashboard.chats import setup_of
from dashboard.gateway_status import GatewayState, ask_gateway
from dashboard.links import CHAT, TRAJECTORIES, address
from dashboard.live_chats import RunningTurn, TurnState, live_chats
from dashboard.text import escape, link, mono, prose, show, show_code, show_empty, soft, tidy_json
from store.browsing import StepFigures, any_trajectory, sampled_arguments, step_figures
from store.chats import WHOLE, ChatSetup, is_listed
from store.database import Log
from store.ratings import Rating, ratings_of
from store.records import TurnRecord
from store.settings import Settings
from store.trajectories import get_trajectory
from store.turns import get_turns
from store.vocabulary import AccessRole

REDRAW_S = 0.06  # a picture of the reply for every token would cost more than the tokens
AT_LEAST_S = 0.4  # however little happens: also what lets a click on the page through
SHOWN_TURNS = 12


@dataclass(frozen=True)
class NextMessage:
    """What stands in the way of the next message, and what it would begin or go on with."""

    chat_id: str | None
    setup: ChatSetup | None
    """None: a chat that can only be read here."""
    gateway_is_up: bool
    running: RunningTurn | None = None
    waiting: bool = False
    allowed: bool = True

    @property
    def hint(self) -> str:
        if not self.allowed:
            return "Your role may read chats only"
        if not self.gateway_is_up:
            return "The agent cannot be reached"
        if self.setup is None:
            return "This chat can only be read here"
        if self.running is not None:
            return "The agent is answering"
        return "The agent waits for your decision above" if self.waiting else ""


def show_chat(log: Log, settings: Settings) -> None:
    chat_id = st.query_params.get("session")
    main, side = st.columns([7, 2], gap="large")
    with side:
        show_list(log, chat_id)
    with main:
        if problem := st.session_state.pop(PROBLEM, None):
            st.error("That did not work.", icon=":material/error:")
            show_code(problem)
        if note := st.session_state.pop("chat-note", None):
            st.success(note, icon=":material/check:")
        state = ask_gateway(settings.gateway_url)
        if chat_id and not any_trajectory(log, chat_id):
            show_empty("There is no such chat", f"The log holds none with the id {chat_id}: it may have been deleted.")
            return
        if chat_id is None and not may(AccessRole.REVIEWER):
            show_empty("Choose a chat", "Your role may read them. Chatting needs the role reviewer.")
            coming = NextMessage(None, None, state == GatewayState.READY, allowed=False)
        elif chat_id is None:
            is_up = show_gateway_state(state, settings)
            coming = NextMessage(None, choose_setup(settings, is_up), is_up)
        else:
            coming = show_session(log, chat_id, state, settings)
    # Outside of the columns: only there it stays at the bottom of the window.
    st.chat_input(
        coming.hint or "Message the agent",
        key="say",
        disabled=bool(coming.hint),
        on_submit=say_typed,
        args=(chat_id, coming.setup, "say"),
    )
    if coming.running is not None and chat_id is not None:
        with main:
            follow(chat_id, coming.running)


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


def show_session(log: Log, chat_id: str, state: GatewayState, settings: Settings) -> NextMessage:
    """The dialogue so far; returns how it goes on."""
    summary = get_trajectory(log, chat_id)
    setup = setup_of(summary)
    turn = live_chats().turn_of(chat_id)
    turn_state = turn.state if turn is not None else None  # asked once, and before the log: it changes meanwhile
    if turn_state in (TurnState.ENDED, TurnState.WAITING):
        live_chats().forget(chat_id)
        turn = None
    running = turn if turn_state is TurnState.RUNNING else None
    turns = get_turns(log, chat_id)
    show_head(summary, setup, turns[0].user if turns else turn.text if turn else "", is_listed(log, chat_id))
    # A turn that runs, or was broken off here, is shown as this process knows it; the log may not have all of it yet.
    settled = turns if turn is None else turns[: turn.index]
    sampled, figures = sampled_arguments(log, chat_id), step_figures(log, chat_id)
    allowed = may_say(setup)
    can_say = state == GatewayState.READY and setup is not None and allowed
    waiting = calls_that_wait(turns[-1], setup) if turns and turn is None else []
    show_settled(log, chat_id, settled, figures, sampled, can_retry=can_say and turn is None, waiting=waiting)
    if turn is not None and running is None:
        show_broken_off(chat_id, turn, can_say)
    if waiting:
        show_question(chat_id, turns[-1], sampled, waiting, can_say, allowed)
    if setup is None:
        show(soft("This chat was started elsewhere, with tools that the dashboard does not have: it can be read here."))
    return NextMessage(chat_id, setup, show_gateway_state(state, settings), running, bool(waiting), allowed)


def may_say(setup: ChatSetup | None) -> bool:
    """Tools that do something outside of the log are for operators."""
    outside = setup is not None and setup.tools in OUTSIDE
    return may(AccessRole.OPERATOR if outside else AccessRole.REVIEWER)


def calls_that_wait(turn: TurnRecord, setup: ChatSetup | None) -> list[str]:
    """Ids of the calls that a person decides on: those of the newest step, if none of its calls was answered."""
    last = turn.steps[-1]
    if setup is None or last.finish_reason not in WHOLE or any(call.response is not None for call in last.calls):
        return []
    return [call.call_id for call in last.calls if call.name in setup.ask_first and call.arguments is not None]


def show_settled(
    log: Log,
    chat_id: str,
    turns: Sequence[TurnRecord],
    figures: dict[tuple[int, int], StepFigures],
    sampled: dict[str, str],
    *,
    can_retry: bool,
    waiting: Sequence[str],
) -> None:
    """Turns out of the log; the newest ones, the others on request."""
    ratings = ratings_of(log, [chat_id])
    rates = may(AccessRole.REVIEWER)
    shown = int(st.session_state.get(f"shown-{chat_id}", SHOWN_TURNS))
    hidden = max(0, len(turns) - shown)
    if hidden:
        st.button(
            f"Show {min(hidden, 4 * SHOWN_TURNS)} of {hidden} earlier turns",
            type="tertiary",
            icon=":material/expand_less:",
            on_click=show_more,
            args=(chat_id, shown),
            key="earlier",
        )
    for turn in turns[hidden:]:
        is_last = turn is turns[-1]
        with st.chat_message("user", avatar=":material/person:"):
            show(prose(turn.user))
        with st.chat_message("assistant", avatar=":material/smart_toy:"):
            asked = waiting if is_last else ()
            show(turn_html(parts_of_turn(turn, sampled), asked=asked))
            if not turn.complete and not asked:
                show(soft("This turn ended without a reply; it can be said again."))
            if not asked:
                rating = ratings.get((chat_id, turn.index))
                show_below(chat_id, turn, figures, rating, can_retry=can_retry and is_last, rates=rates)


def show_more(chat_id: str, shown: int) -> None:
    st.session_state[f"shown-{chat_id}"] = shown + 4 * SHOWN_TURNS


def show_below(
    chat_id: str,
    turn: TurnRecord,
    figures: dict[tuple[int, int], StepFigures],
    rating: Rating | None,
    *,
    can_retry: bool,
    rates: bool,
) -> None:
    """What a person can say of a turn, and where more is said of it."""
    name = f"{chat_id}-{turn.index}"
    with st.container(horizontal=True, vertical_alignment="center", key=f"below-{turn.index}", gap="small"):
        if rates:
            thumb = f"thumb-{name}"
            st.session_state[thumb] = None if rating is None else int(rating.value > 0)
            st.feedback("thumbs", key=thumb, on_change=rate, args=(chat_id, turn.index, thumb))
        elif rating is not None:
            show(rating_html(rating))
        if rating is not None and rates:
            with st.popover("Comment", icon=":material/edit_note:", type="tertiary"):
                text = f"comment-{name}"
                st.text_area("What was good or bad about it", value=rating.comment, key=text, max_chars=2000)
                st.button("Save", key=f"save-{name}", on_click=comment, args=(chat_id, turn.index, rating.value, text))
        if can_retry:
            show_retry(chat_id, turn.index, turn.user)
        place = f"{address(TRAJECTORIES, trajectory=chat_id)}#turn-{turn.index + 1}"
        show(f'<div class="cl-row">{link("Verdicts", place)}{cost_html(turn, figures)}</div>')
    if rating is not None and rating.comment and rates:
        show(f'<div class="cl-quote cl-soft">{escape(rating.person)}: {escape(rating.comment)}</div>')


def show_retry(chat_id: str, turn: int, said: str) -> None:
    """Say the last turn again, as it was or otherwise. The log keeps both."""
    with st.popover("Edit", icon=":material/edit:", type="tertiary"):
        text = f"edit-{chat_id}-{turn}"
        st.text_area("Your message", value=said, key=text)
        st.button("Say this instead", key="instead", on_click=say_instead, args=(chat_id, turn, None, text))
    st.button(
        "Say again",
        icon=":material/refresh:",
        type="tertiary",
        key="again",
        on_click=say_instead,
        args=(chat_id, turn, said),
        help="The agent answers anew; the log keeps both answers.",
    )


def show_broken_off(chat_id: str, turn: RunningTurn, ready: bool) -> None:
    """A turn that was stopped, or failed: as far as it came, and how to say it again."""
    with st.chat_message("user", avatar=":material/person:"):
        show(prose(turn.text))
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        show(turn_html(parts_of_events(turn.events, turn.begun)))
        if turn.state is TurnState.STOPPED:
            show(soft("Stopped. The turn can be said again."))
        else:
            st.error("The turn could not be finished; it can be said again.", icon=":material/error:")
            show_code(turn.problem)
        if ready:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                show_retry(chat_id, turn.index, turn.text)


def show_question(
    chat_id: str, turn: TurnRecord, sampled: dict[str, str], waiting: Sequence[str], can_say: bool, allowed: bool
) -> None:
    """The next call that waits, with what a person can say to it."""
    decided = st.session_state.get(decisions_key(chat_id), {})
    parts = parts_of_turn(turn, sampled)
    calls = [p for p in parts if isinstance(p, Called) and p.call_id in waiting and p.call_id not in decided]
    if not calls:
        return
    call = calls[0]
    more = f" · {len(calls) - 1} more after it" if len(calls) > 1 else ""
    with st.container(border=True, key="question"):
        show(
            f'<div class="cl-label">Asks first{more}</div>'
            f'<div class="cl-title">Shall the agent call {escape(call.name)}?</div>{mono(tidy_json(call.arguments))}'
        )
        if not allowed:
            show(soft("Somebody with another role decides on this."))
            return
        reason = f"reason-{call.call_id}"
        st.text_input("If you refuse: why", key=reason, placeholder="told to the agent", max_chars=500)
        given = (chat_id, turn.index, turn.user, parts, list(waiting), call.call_id)
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                "Approve",
                type="primary",
                icon=":material/check:",
                key="approve",
                disabled=not can_say,
                on_click=decide,
                args=(*given, True, reason),
            )
            st.button(
                "Refuse",
                icon=":material/block:",
                key="refuse",
                disabled=not can_say,
                on_click=decide,
                args=(*given, False, reason),
            )
            if can_say:
                show_retry(chat_id, turn.index, turn.user)


def follow(chat_id: str, turn: RunningTurn) -> None:
    """Draws a turn as it is said; afterwards the page shows it from the log."""
    with st.chat_message("user", avatar=":material/person:"):
        show(prose(turn.text))
    with st.chat_message("assistant", avatar=":material/smart_toy:"):
        place = st.empty()
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if may(AccessRole.REVIEWER):
                st.button("Stop", icon=":material/stop:", key="stop", on_click=stop, args=(chat_id,))
            clock = st.empty()
        drawn, seen = 0.0, -1
        while not turn.wait(REDRAW_S):
            now = time.monotonic()
            if len(turn.events) != seen or now - drawn >= AT_LEAST_S:
                seen, drawn = len(turn.events), now
                parts = parts_of_events(turn.events[:seen], turn.begun) if seen else list(turn.begun)
                place.html(f'<div class="cl">{turn_html(parts, running=True)}</div>')
                clock.html(f'<div class="cl">{soft(took(1000 * (now - turn.started)))}</div>')
    st.rerun()


run_page(CHAT.title, show_chat)
