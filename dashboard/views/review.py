"""Review: judged turns one by one under a filter, with keys (docs/review.md).

Reads a queue (store.review_queues) and one turn; what the reviewer does is in dashboard.review_actions. Filter and turn
stand in the address, so that a reload or a link shows the same; what was said is in the log at once. The page reruns
as one fragment: a key costs the queries of one turn.
"""

from datetime import UTC, datetime

import streamlit as st

from dashboard.boundary import connect, counted, current_settings, guard, looking, may, run_page
from dashboard.chat_turns import rating_html
from dashboard.job_offers import offer_job
from dashboard.links import REVIEW
from dashboard.review_actions import (
    ANY,
    FOCUS,
    ITEM,
    LIVE,
    NOTE,
    PROBLEM,
    REASON,
    chosen_queue,
    claimant,
    draw_keys_for,
    focus_item,
    keep_reason,
    move,
    only_chosen_item,
    only_item,
    open_turn,
    reviewer,
    settle,
    settle_bad,
    settle_rest,
    start_queue,
    turn_of_address,
    undo_last,
)
from dashboard.review_turn import dialogue_html, item_html, progress_html
from dashboard.text import escape, escape_markdown, show, show_code, show_empty, soft
from reward.review import TurnToReview, read_turn, resume_turn
from store.browsing import sampled_arguments, step_figures
from store.database import Log
from store.figures import facets
from store.ratings import ratings_of
from store.review_claims import Claim, claim_turn, claims_of_others, name_of, pace_of, place_of
from store.review_queues import QueueFilter, any_judged, count_open, is_logged, judged_items, judged_kinds
from store.review_samples import any_put_up, review_batches
from store.settings import Settings
from store.vocabulary import AccessRole, JobKind, Outcome, SampleReason

RENEW_S = 60
"""An open page keeps its turn by renewing the claim."""

WHYS = [SampleReason.RANDOM, SampleReason.DISPUTED, SampleReason.UNCERTAIN, SampleReason.ANCHOR]
WHY_HELP = (
    "random: the audit share, drawn with equal chance; disputed: judges, votes or thumbs disagree; uncertain: a judge "
    "was not sure; anchor: the fixed set. `checkloop judge sample` puts turns up."
)
SAMPLE = "checkloop judge sample"
SAMPLE_HELP = "20 at random, the 10 most disputed, the 10 most uncertain."


def show_review(log: Log, settings: Settings) -> None:
    if not any_judged(log):
        known = counted(log, facets)
        if known.origins:
            show_empty("No turn is judged yet", "The judge speaks first, then people.", "checkloop judge")
            offer_job(log, "Judge what is logged", JobKind.JUDGE, {}, "offer-judge")
        else:
            show_empty("No dialogue is logged yet", "Play the demo once; its turns are judged.", "make demo")
        return
    if not may(AccessRole.REVIEWER):
        show_read_only(log)
        return
    show_queue_filters(log)
    show_queue()
    keep_claim()


def show_read_only(log: Log) -> None:
    """A turn by its link, for who may only look: it is not taken from anybody, and there is nothing to press."""
    turn = turn_of_address()
    shown = read_turn(log, turn) if turn is not None else None
    if turn is None or shown is None:
        show_empty("Reviewing needs the role reviewer", "A turn that somebody gives you the link of can be read here.")
        return
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show(dialogue_html(shown, None, step_figures(log, turn[0]), sampled_arguments(log, turn[0])))
    with right, st.container(key="judging", gap="xsmall"):
        show("".join(item_html(one, False) for one in shown.items))


def show_queue_filters(log: Log) -> None:
    """One row; each is bound to the query parameter of its key."""
    known = counted(log, facets)
    batches = [batch.name for batch in review_batches(log)]
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        st.multiselect(
            "Put up as",
            [str(why) for why in WHYS],
            key="why",
            bind="query-params",
            width=210,
            help=WHY_HELP,
            placeholder=ANY,
            on_change=start_queue,
        )
        _select("Judge's verdict", "verdict", [ANY, *(one.value for one in Outcome)], 140)
        _select("Version", "of_version", [ANY, *known.versions], 115)
        _select("Domain", "of_domain", [ANY, *known.domains], 130)
        _select("Kind of item", "of_kind", [ANY, *counted(log, judged_kinds)], 130)
        _select_item(log)
        if batches:
            _select("Batch", "of_batch", [ANY, *batches], 190)
        st.checkbox("Thumbs down", key="thumbs", bind="query-params", on_change=start_queue)
        if not looking().signed_in:
            st.text_input(
                "Reviewer",
                key="reviewer",
                bind="query-params",
                placeholder=reviewer(),
                max_chars=128,
                width=180,
                on_change=start_queue,
            )


def _select(label: str, key: str, values: list[str], width: int, note: str | None = None) -> None:
    st.selectbox(label, values, key=key, bind="query-params", width=width, help=note, on_change=start_queue)


def _select_item(log: Log) -> None:
    """Among the items of the chosen domain (and kind); there are too many to choose among all."""
    wanted = chosen_queue()
    if wanted.domain is None:
        return
    found = judged_items(log, domain=wanted.domain, kind=wanted.kind)
    names = {one.id: f"{one.key} · {one.scenario}, turn {one.turn_index + 1}" for one in found}
    if wanted.item_id is not None:
        names.setdefault(wanted.item_id, f"item {wanted.item_id}")
    st.session_state[ITEM] = wanted.item_id
    st.selectbox(
        "Item",
        [None, *names],
        key=ITEM,
        format_func=lambda number: ANY if number is None else names[number],
        width=230,
        help="The first 500 of the domain, by scenario; O narrows to any.",
        on_change=only_chosen_item,
    )


@st.fragment
def show_queue() -> None:
    guard(REVIEW.title, lambda: _show_queue(connect(current_settings())), AccessRole.REVIEWER)


@st.fragment(run_every=RENEW_S)
def keep_claim() -> None:
    """Keeps the turn for its reviewer while the page is open, and for a moment after it."""
    guard(REVIEW.title, _renew_claim)


def _renew_claim() -> None:
    if (turn := turn_of_address()) is None or not may(AccessRole.REVIEWER):
        return
    log = connect(current_settings())
    if is_logged(log, turn):  # a link may name any turn; the page says so, and the claim stays where it is
        claim_turn(log, turn, person=claimant(), at=datetime.now(UTC))


def _show_queue(log: Log) -> None:
    if problem := st.session_state.pop(PROBLEM, None):
        st.error("That did not work.", icon=":material/error:")
        show_code(problem)
    note = st.session_state.pop(NOTE, None)
    wanted, person, now = chosen_queue(), claimant(), datetime.now(UTC)
    turn = turn_of_address()
    if turn is None:
        turn = resume_turn(log, wanted, person=person, at=now)
        if turn is None:
            show_progress(log, wanted, person, now, note)
            show_nothing_open(log, wanted, person, now)
            return
        open_turn(turn)
    shown = read_turn(log, turn)
    if shown is None:
        show_empty("There is no such turn", f"The log holds no turn {turn[1]} of {turn[0]}.")
        st.button("To the queue", on_click=start_queue, icon=":material/arrow_forward:")
        return
    claim = claim_turn(log, turn, person=person, at=now, queue=wanted.name)
    left, right = st.columns([3, 2], gap="medium")
    focused = focused_item(shown, wanted)
    draw_keys_for(turn, focused)
    with right, st.container(key="judging", gap="xsmall"):
        show_progress(log, wanted, person, now, note)
        show_keys(shown, focused, claim, person, wanted)
        show_items(log, shown, focused)
    with left:
        show(dialogue_html(shown, focused, step_figures(log, turn[0]), sampled_arguments(log, turn[0])))


def focused_item(shown: TurnToReview, wanted: QueueFilter) -> str | None:
    """The item that the keys speak of: the one chosen, else the first that is open and that the queue asks for, else
    the first that is open, else the first."""
    chosen = st.query_params.get(FOCUS)
    if chosen in [one.item.id for one in shown.items]:
        return chosen
    in_order = sorted(shown.items, key=lambda one: (not one.is_open, not one.asked_for(wanted)))
    focus_item(in_order[0].item.id if in_order else None)
    return in_order[0].item.id if in_order else None


def show_progress(log: Log, wanted: QueueFilter, person: str, now: datetime, note: str | None) -> None:
    left = count_open(log, wanted, person=person, at=now)
    others = claims_of_others(log, person, now)
    show(progress_html(pace_of(log, name_of(person), now), left, len(others), note))
    for claim in others:
        if claim.name == name_of(person):
            st.warning(
                f"Somebody reviews as {escape_markdown(claim.name)} in another browser, too: they have a turn until "
                f"{claim.until:%H:%M} UTC. What both say is recorded under this one name, and Undo takes back the "
                "newest of it, whoever said it. Write your own name in the field Reviewer.",
                icon=":material/group:",
            )
            break


def show_keys(shown: TurnToReview, focused: str | None, claim: Claim, person: str, wanted: QueueFilter) -> None:
    mine = claim.person == person
    if not mine:
        show(
            f'<div class="cl-row"><b>{escape(claim.name)}</b>'
            f"{soft(f'has this turn until {claim.until:%H:%M} UTC: go on to the next one')}</div>"
        )
    can = mine and focused is not None
    with st.container(horizontal=True, gap="small", key="verdict-keys"):
        for label, outcome, icon in (
            ("Pass", Outcome.PASS, ":material/check:"),
            ("Fail", Outcome.FAIL, ":material/close:"),
        ):
            st.button(
                label,
                icon=icon,
                key=label.lower(),
                shortcut=label[0],
                disabled=not can,
                on_click=settle,
                args=(shown.key, focused, outcome),
            )
        st.button(
            "Bad item",
            icon=":material/block:",
            key="bad",
            shortcut="B",
            disabled=not can,
            on_click=settle_bad,
            args=(shown.key, focused),
            help="It leaves the checklist; needs a reason.",
        )
        st.button(
            "Agree",
            type="primary",
            key="agree",
            shortcut="A",
            icon=":material/done_all:",
            disabled=not mine or not shown.agreeable(wanted),
            on_click=settle_rest,
            args=(shown.key,),
            help="With the judge, on every open item that the queue asks for; then the next turn.",
        )
    if REASON not in st.session_state:
        st.session_state[REASON] = _draft(shown, person)
    st.text_input(
        "Reason",
        key=REASON,
        on_change=keep_reason,
        live=LIVE,
        label_visibility="collapsed",
        placeholder="Reason (goes with the next key; Tab leaves the field)",
    )
    with st.container(horizontal=True, gap="small", key="walk"):
        st.button(
            "Previous", key="previous", shortcut="Left", on_click=move, args=(shown.key, True), help="the turn before"
        )
        st.button("Next", key="next", shortcut="Right", on_click=move, args=(shown.key, False), help="next open turn")
        st.button(
            "Undo", key="undo", shortcut="U", icon=":material/undo:", on_click=undo_last, help="what you said last"
        )
        show_narrowing(shown, focused, wanted)


def _draft(shown: TurnToReview, person: str) -> str:
    place = place_of(connect(current_settings()), person, chosen_queue().name)
    return place.draft if place is not None and place.turn == shown.key else ""


def show_items(log: Log, shown: TurnToReview, focused: str | None) -> None:
    if found := ratings_of(log, [shown.key[0]]).get(shown.key):
        show(rating_html(found))
    if not shown.items:
        show(soft("No item of the current checklist speaks of this turn."))
    for number, one in enumerate(shown.items, start=1):
        left, right = st.columns([1, 11], gap="xsmall")
        key = one.item.id
        left.button(
            str(number),
            key=f"item-{number}",
            shortcut=str(number) if number < 10 else None,
            type="primary" if key == focused else "secondary",
            on_click=focus_item,
            args=(key,),
        )
        with right:
            show(item_html(one, key == focused))


def show_narrowing(shown: TurnToReview, focused: str | None, wanted: QueueFilter) -> None:
    """One item after the other goes fastest: the same question, turn by turn."""
    if wanted.item_id is not None:
        st.button(
            "Every item", key="every-item", shortcut="O", on_click=only_item, args=(None,), help="the whole queue"
        )
        return
    judged = next((one.judged for one in shown.items if one.item.id == focused), None)
    st.button(
        "Only this",
        key="only-item",
        shortcut="O",
        disabled=judged is None,
        on_click=only_item,
        args=(judged.item_id if judged else None,),
        help="this item, turn by turn",
    )


def show_nothing_open(log: Log, wanted: QueueFilter, person: str, now: datetime) -> None:
    others = claims_of_others(log, person, now)
    if wanted.is_sampled and not review_batches(log):
        show_empty("No turn was put up for review yet", "Draw a sample first:", SAMPLE)
        offer_job(log, "Put turns up for review", JobKind.SAMPLE, {}, "offer-sample", SAMPLE_HELP)
    elif others:
        names = ", ".join(sorted({claim.name for claim in others}))
        show_empty("Nothing is open here but what others look at", f"At work: {names}. Reload in a few minutes.")
    else:
        if wanted.whys and not any_put_up(log, wanted.whys):
            named = " or ".join(wanted.whys)
            show_empty(f"No turn was put up as {named} yet", "Draw a sample of what is judged by now:", SAMPLE)
        else:
            show_empty("This queue is done", "Choose another filter above, or come back when more is judged.")
        if wanted.is_sampled:
            offer_job(log, "Put more turns up", JobKind.SAMPLE, {}, "offer-sample", SAMPLE_HELP)
    if wanted.item_id is not None:
        st.button("Every item", key="every-item", icon=":material/filter_alt_off:", on_click=only_item, args=(None,))
    st.button("Undo", key="undo", shortcut="U", icon=":material/undo:", on_click=undo_last, help="what you said last")


run_page(REVIEW.title, show_review)
