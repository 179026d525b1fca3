"""What a reviewer does on the page, as callbacks of its buttons: they run before the page is drawn anew.

Each calls the function that the command of the same name calls. What goes wrong becomes the page's message. The turn
and the item that are looked at stand in the address (`?turn=ID:INDEX&focus=KEY`).
"""

from datetime import UTC, datetime

import streamlit as st

from dashboard import boundary
from dashboard.rescoring import later
from dashboard.seat import browser
from reward.people import call_bad
from reward.review import TurnToReview, agree, hold_turn, read_turn, say_of, take_turn, undo
from store.database import Log, LogError
from store.review_claims import keep_draft, seated
from store.review_queues import QueueFilter, Turn
from store.settings import Settings
from store.vocabulary import AccessRole, Outcome, SampleReason

PROBLEM = "review-problem"
NOTE = "review-note"
FOCUS = "focus"
"""Of the address: the key of the item that the keys speak of."""
REASON = "reason"
ITEM = "of-item"
"""Of the session: the number in the box of items, which follows the address."""
LIVE = "400ms"
"""A reason is kept whenever its writer pauses for so long."""
ANY = "any"
DRAWN = "review-drawn"
"""Of the session: the turn and the item that the page was drawn for, which its keys speak of; none once one of them has
led elsewhere."""
TOO_SOON = "a key came before the page had followed: it said nothing"


def reviewer() -> str:
    """Who reviews: the one who signed in, else the name in the address, else the user of this machine."""
    somebody = boundary.looking()
    if somebody.signed_in:
        return somebody.name
    return str(st.session_state.get("reviewer") or "").strip() or somebody.name


def claimant() -> str:
    """Who has turns: the one who signed in, else the name at this browser, for two may give one name."""
    return reviewer() if boundary.looking().signed_in else seated(reviewer(), browser())


def chosen_queue() -> QueueFilter:
    """What the filters of the page and the address ask for; anything that is no value of a filter is none."""

    def chosen(key: str) -> str | None:
        value = st.session_state.get(key, ANY)
        return None if value == ANY else str(value)

    whys, outcome = st.session_state.get("why") or [], chosen("verdict")
    item = st.query_params.get("item", "")
    return QueueFilter(
        whys=tuple(SampleReason(why) for why in whys if why in set(SampleReason)),
        batch=chosen("of_batch"),
        version=chosen("of_version"),
        domain=chosen("of_domain"),
        kind=chosen("of_kind"),
        item_id=int(item) if item.isascii() and item.isdigit() and len(item) < 10 else None,
        outcome=Outcome(outcome) if outcome in set(Outcome) else None,
        thumbs_down=bool(st.session_state.get("thumbs")),
    )


def turn_of_address() -> Turn | None:
    name, _, index = st.query_params.get("turn", "").rpartition(":")
    return (name, int(index)) if name and index.isascii() and index.isdigit() and len(index) < 6 else None


def open_turn(turn: Turn | None, item_key: str | None = None) -> None:
    """Puts a turn into the address; the next drawing shows it."""
    if turn is None:
        st.query_params.pop("turn", None)
    else:
        st.query_params["turn"] = f"{turn[0]}:{turn[1]}"
    focus_item(item_key)
    st.session_state.pop(REASON, None)


def start_queue() -> None:
    """Another filter or another reviewer: the turn of the old queue is left."""
    open_turn(None)


def only_item(item_id: int | None) -> None:
    """Narrows the queue to an item, or takes that back."""
    if item_id is None:
        st.query_params.pop("item", None)
        open_turn(None)
    else:
        st.query_params["item"] = str(item_id)


def only_chosen_item() -> None:
    """As `only_item`, by the box of items."""
    chosen = st.session_state.get(ITEM)
    only_item(None if chosen is None else int(chosen))
    start_queue()


def focus_item(item_key: str | None) -> None:
    """None: the page chooses."""
    st.session_state.pop(DRAWN, None)
    if item_key is None:
        st.query_params.pop(FOCUS, None)
    else:
        st.query_params[FOCUS] = item_key


def draw_keys_for(turn: Turn, item_key: str | None) -> None:
    """From now on keys speak of these."""
    st.session_state[DRAWN] = (turn, item_key)


def _comes_too_soon(turn: Turn, item_key: str | None = None) -> bool:
    """A key that was pressed before its reviewer could see where the one before it had led. It would speak of an item
    that they look at no more (the page's last drawing is of another one), or not yet (their address says another one).
    """
    drawn_turn, drawn_item = st.session_state.get(DRAWN) or (None, None)
    soon = drawn_turn != turn or turn_of_address() not in (None, turn)
    if item_key is not None:
        soon = soon or drawn_item != item_key or st.query_params.get(FOCUS) not in (None, item_key)
    if soon:
        before = st.session_state.get(NOTE)
        st.session_state[NOTE] = f"{before}; {TOO_SOON}" if before else TOO_SOON
    return soon


action = boundary.action(AccessRole.REVIEWER, PROBLEM)
"""Makes a callback of a function that changes something; reviewers and operators."""


@action
def settle(log: Log, settings: Settings, turn: Turn, item_key: str, outcome: Outcome) -> None:
    """PASS or FAIL on an item; then the next open one that the queue asks for, or the next turn."""
    if _comes_too_soon(turn, item_key):
        return
    shown = _held(log, turn)
    said = say_of(log, shown, item_key, outcome, person=reviewer(), reason=_reason())
    st.session_state[NOTE] = f"{item_key}: {said.verdict.outcome}"
    _go_on(log, turn, after=item_key)


@action
def settle_bad(log: Log, settings: Settings, turn: Turn, item_key: str) -> None:
    """The item is bad. It leaves the checklists of its scenario, so a reason is asked for."""
    if _comes_too_soon(turn, item_key):
        return
    if not _reason():
        raise LogError(f"say in the field Reason why {item_key!r} is bad: it leaves the checklist for every dialogue")
    _held(log, turn)
    revised = call_bad(log, *turn, item_key, person=reviewer(), reason=_reason(), later=later)
    more = f"; {revised.waiting:,} more are being computed" if revised.waiting else ""
    st.session_state[NOTE] = f"{item_key} is out of the checklist; rewards that changed: {revised.changed}{more}"
    _go_on(log, turn, after=item_key)


@action
def settle_rest(log: Log, settings: Settings, turn: Turn) -> None:
    """Says what the judge said of every open item that the queue asks for."""
    if _comes_too_soon(turn):
        return
    said = agree(log, _held(log, turn), person=reviewer(), reason=_reason(), wanted=chosen_queue())
    st.session_state[NOTE] = f"agreed with the judge on {len(said)} item{'s' if len(said) != 1 else ''}"
    _go_on(log, turn)


@action
def undo_last(log: Log, settings: Settings) -> None:
    """Takes back what this reviewer said last, all that one key said, and shows that turn again."""
    undone = undo(log, person=reviewer(), later=later)
    if undone is None:
        raise LogError("there is nothing of yours to undo")
    last = undone.said
    what = f"{last.outcome or 'bad item'}, {last.item_key}"
    if len(undone.together) > 1:
        what = f"{len(undone.together)} verdicts"
    elif undone.revised is not None and not undone.revised.checklists:
        what += "; its checklist has it again or was written anew, and stays as it is"
    st.session_state[NOTE] = f"taken back: {what}"
    open_turn((last.trajectory_id, last.turn_index), undone.together[0].item_key)


@action
def move(log: Log, settings: Settings, turn: Turn | None, backwards: bool) -> None:
    """To the next open turn, or to the turn before; what is open here stays open."""
    now = datetime.now(UTC)
    found = take_turn(log, chosen_queue(), person=claimant(), at=now, after=turn, backwards=backwards)
    if found is None or found == turn:
        st.session_state[NOTE] = "this is the first turn of the queue" if backwards else "no other turn is open"
    else:
        open_turn(found)


@action
def keep_reason(log: Log, settings: Settings) -> None:
    """What stands in the field Reason outlives the page."""
    keep_draft(log, claimant(), chosen_queue().name, _reason())


def _reason() -> str:
    return str(st.session_state.get(REASON) or "").strip()


def _held(log: Log, turn: Turn) -> TurnToReview:
    hold_turn(log, turn, person=claimant(), at=datetime.now(UTC), queue=chosen_queue().name)
    shown = read_turn(log, turn)
    if shown is None:
        raise LogError(f"turn {turn[1]} of trajectory {turn[0]!r} is not in the log any more")
    return shown


def _go_on(log: Log, turn: Turn, after: str | None = None) -> None:
    """The next item that is open here and that the queue asks for, after the one that was settled if there is one; else
    the next turn. At the end of the queue no turn is left in the address: the page says that it is done."""
    wanted = chosen_queue()
    keep_draft(log, claimant(), wanted.name, "")
    st.session_state.pop(REASON, None)
    shown = read_turn(log, turn) if after is not None else None
    open_ones = [one.item.id for one in shown.open_items(wanted)] if shown else []
    if shown is not None and open_ones:
        keys = [one.item.id for one in shown.items]
        beyond = keys[keys.index(after) + 1 :] if after in keys else []
        focus_item(next((key for key in beyond if key in open_ones), open_ones[0]))
        return
    open_turn(take_turn(log, wanted, person=claimant(), at=datetime.now(UTC), after=turn))
