"""What a reviewer does on the page, as callbacks of its buttons: they run before the page is drawn anew.

Each calls the function that the command of the same name calls. What goes wrong becomes the page's message. The turn
and the item that are looked at stand in the address (`?turn=ID:INDEX&focus=KEY`).
"""

from datetime import UTC, datetime

import streamlit as st

from dashboard import boundary
from dashboard.rescoring import later
from reward.people import call_bad
from reward.review import TurnToReview, agree, hold_turn, read_turn, say_of, take_turn, undo
from store.database import Log, LogError
from store.review_claims import keep_draft
from store.review_queues import QueueFilter, Turn
from store.settings import Settings
from store.vocabulary import AccessRole, Outcome, SampleReason

PROBLEM = "review-problem"
NOTE = "review-note"
FOCUS = "focus"
"""Of the address: the key of the item that the keys speak of."""
REASON = "reason"
ANY = "any"
THUMBS = "thumbs down"


def reviewer() -> str:
    """Who reviews: the one who signed in, else the name in the address, else the user of this machine."""
    somebody = boundary.looking()
    if somebody.signed_in:
        return somebody.name
    return str(st.session_state.get("reviewer") or "").strip() or somebody.name


def chosen_queue() -> QueueFilter:
    """What the filters of the page and the address ask for; anything that is no value of a filter is none."""

    def chosen(key: str) -> str | None:
        value = st.session_state.get(key, ANY)
        return None if value == ANY else str(value)

    why, outcome = chosen("why"), chosen("verdict")
    item = st.query_params.get("item", "")
    return QueueFilter(
        why=SampleReason(why) if why in set(SampleReason) else None,
        batch=chosen("of_batch"),
        version=chosen("of_version"),
        item_id=int(item) if item.isascii() and item.isdigit() and len(item) < 10 else None,
        outcome=Outcome(outcome) if outcome in set(Outcome) else None,
        thumbs_down=why == THUMBS,
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


def focus_item(item_key: str | None) -> None:
    """None: the page chooses."""
    if item_key is None:
        st.query_params.pop(FOCUS, None)
    else:
        st.query_params[FOCUS] = item_key


action = boundary.action(AccessRole.REVIEWER, PROBLEM)
"""Makes a callback of a function that changes something; reviewers and operators."""


@action
def settle(log: Log, settings: Settings, turn: Turn, item_key: str, outcome: Outcome) -> None:
    """PASS or FAIL on an item; then its next open item, or the next turn."""
    shown = _held(log, turn)
    said = say_of(log, shown, item_key, outcome, person=reviewer(), reason=_reason())
    st.session_state[NOTE] = f"{item_key}: {said.verdict.outcome}"
    _go_on(log, turn, after=item_key)


@action
def settle_bad(log: Log, settings: Settings, turn: Turn, item_key: str) -> None:
    """The item is bad. It leaves the checklists of its scenario, so a reason is asked for."""
    if not _reason():
        raise LogError(f"say in the field Reason why {item_key!r} is bad: it leaves the checklist for every dialogue")
    _held(log, turn)
    revised = call_bad(log, *turn, item_key, person=reviewer(), reason=_reason(), later=later)
    more = f"; {revised.waiting:,} more are being computed" if revised.waiting else ""
    st.session_state[NOTE] = f"{item_key} is out of the checklist; rewards that changed: {revised.changed}{more}"
    _go_on(log, turn, after=item_key)


@action
def settle_rest(log: Log, settings: Settings, turn: Turn) -> None:
    """Says what the judge said of every item that is open."""
    said = agree(log, _held(log, turn), person=reviewer(), reason=_reason())
    st.session_state[NOTE] = f"agreed with the judge on {len(said)} item{'s' if len(said) != 1 else ''}"
    _go_on(log, turn)


@action
def undo_last(log: Log, settings: Settings) -> None:
    """Takes back what this reviewer said last, and shows that turn again."""
    undone = undo(log, person=reviewer(), later=later)
    if undone is None:
        raise LogError("there is nothing of yours to undo")
    last = undone.said
    st.session_state[NOTE] = f"taken back: {last.outcome or 'bad item'}, {last.item_key}"
    open_turn((last.trajectory_id, last.turn_index), last.item_key)


@action
def move(log: Log, settings: Settings, turn: Turn | None, backwards: bool) -> None:
    """To the next open turn, or to the turn before; what is open here stays open."""
    now = datetime.now(UTC)
    found = take_turn(log, chosen_queue(), person=reviewer(), at=now, after=turn, backwards=backwards)
    if found is None or found == turn:
        st.session_state[NOTE] = "this is the first turn of the queue" if backwards else "no other turn is open"
    else:
        open_turn(found)


@action
def keep_reason(log: Log, settings: Settings) -> None:
    """What stands in the field Reason outlives the browser."""
    keep_draft(log, reviewer(), chosen_queue().name, _reason())


def _reason() -> str:
    return str(st.session_state.get(REASON) or "").strip()


def _held(log: Log, turn: Turn) -> TurnToReview:
    hold_turn(log, turn, person=reviewer(), at=datetime.now(UTC), queue=chosen_queue().name)
    shown = read_turn(log, turn)
    if shown is None:
        raise LogError(f"turn {turn[1]} of trajectory {turn[0]!r} is not in the log any more")
    return shown


def _go_on(log: Log, turn: Turn, after: str | None = None) -> None:
    """The next item that is open here, after the one that was settled if there is one; else the next turn. A queue of
    one item goes on to the next turn at once."""
    keep_draft(log, reviewer(), chosen_queue().name, "")
    st.session_state.pop(REASON, None)
    shown = read_turn(log, turn)
    keys = [one.item.id for one in shown.items] if shown else []
    open_ones = [one.item.id for one in shown.items if one.is_open] if shown else []
    if after is not None and open_ones and chosen_queue().item_id is None:
        later = [key for key in open_ones if after in keys and keys.index(key) > keys.index(after)]
        focus_item((later or open_ones)[0])
        return
    found = take_turn(log, chosen_queue(), person=reviewer(), at=datetime.now(UTC), after=turn)
    if found is not None and found != turn:
        open_turn(found)
